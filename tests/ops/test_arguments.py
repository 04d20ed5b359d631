"""Every op names arguments of a wrong type, and accepts numpy numbers."""

import inspect
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from helpers.layouts import needs_kernels
from torch.fx.experimental.proxy_tensor import make_fx

from rpcnn import ops
from rpcnn.ops import drop_in
from rpcnn.ops._library import OPS

MAPS = torch.arange(128.0).view(1, 2, 8, 8) / 128
BOXES, SCORES = torch.tensor([[0.0, 0, 4, 4], [1, 0, 5, 4], [4, 4, 8, 8]]), torch.tensor([0.5, 0.9, 0.1])
ROIS = torch.cat([torch.zeros(3, 1), BOXES], 1)
EXAMPLES = {op: example(small=True) for op, example in OPS.items()}
CALLS = {op: example.arguments for op, example in EXAMPLES.items()}
CALLS["batched_nms"] = CALLS["nms_padded"]
CALLS["roi_levels"] = {"boxes": BOXES} | {
    name: CALLS["multilevel_roi_align"][name]
    for name in ("spatial_scales", "canonical_size", "canonical_level", "area_offset")
}
WRONG = {
    torch.Tensor: [None, "x", 1.5, [[0.0]], np.zeros((3, 4))],
    list: [None, 1.5, torch.tensor(1.0)],
    tuple: [None, "ab", 1.5, (1,), (1, 2, 3), (1, None)],
    int: [None, "2", 1.5, [2], np.float64(2.0), np.zeros(2)],
    float: [None, "0.5", [0.5], 1j, np.zeros(2), torch.zeros(2)],
}


def parameters(op):
    """Parameters of the op, without flags."""
    every = inspect.signature(getattr(ops, op)).parameters
    return {name: parameter for name, parameter in every.items() if parameter.annotation is not bool}


def wrong_calls():
    for op in CALLS:
        for name, parameter in parameters(op).items():
            value = CALLS[op][name]
            for wrong in WRONG[type(value)]:
                # A list of tensors is valid for boxes per image; its items are checked below.
                if name == "boxes" and isinstance(wrong, list):
                    continue
                if wrong is None and type(None) in get_args(parameter.annotation):
                    continue
                yield op, name, name, wrong
            if isinstance(value, list):
                for wrong in WRONG[type(value[1])]:
                    yield op, name, f"{name}[1]", [value[0], wrong, *value[2:]]
        if op in ("roi_align", "multilevel_roi_align"):
            for wrong in WRONG[torch.Tensor]:
                yield op, "boxes", "boxes[0]", [wrong]


@pytest.mark.parametrize("op", CALLS)
def test_the_example_names_every_argument(op):
    assert parameters(op).keys() <= CALLS[op].keys()


def test_every_public_op_is_here():
    public = set(ops.__all__) - set(drop_in.__all__)
    assert {name for name in public if not name.endswith("_reference")} == CALLS.keys()


@pytest.mark.parametrize(("op", "name", "named", "wrong"), list(wrong_calls()))
def test_an_argument_of_another_type_is_named(op, name, named, wrong):
    with pytest.raises(ValueError) as error:
        getattr(ops, op)(**CALLS[op] | {name: wrong})
    assert f"{op}: {named} must be " in str(error.value) and ", got " in str(error.value)


def unusual_tensors():
    for op in CALLS:
        for name in parameters(op):
            value = CALLS[op][name]
            if isinstance(value, torch.Tensor):
                yield op, name, name, lambda wrong: wrong, value
            elif isinstance(value, list) and isinstance(value[0], torch.Tensor):
                yield op, name, f"{name}[1]", lambda wrong, value=value: [value[0], wrong, *value[2:]], value[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: torch.nested.nested_tensor([tensor.float()]),
        lambda tensor: tensor.float().to_mkldnn(),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to(torch.float8_e4m3fn),
    ],
    ids=["sparse", "nested", "mkldnn", "complex", "float8"],
)
@pytest.mark.parametrize(("op", "name", "named", "put", "value"), list(unusual_tensors()))
def test_a_tensor_of_another_kind_is_named(op, name, named, put, value, make):
    with pytest.raises(ValueError) as error:
        getattr(ops, op)(**CALLS[op] | {name: put(make(value))})
    assert f"{op}: {named} must " in str(error.value) and ", got " in str(error.value)


NUMBERS = [(op, name) for op in CALLS for name, p in parameters(op).items() if isinstance(CALLS[op][name], int | float)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**30, -(10**30)])
@pytest.mark.parametrize(("op", "name"), NUMBERS)
def test_a_number_that_is_none_is_named(op, name, value):
    if (name, value) in (("semantic_gate", float("inf")), ("output_size", float("nan"))):
        return
    if isinstance(value, int) and isinstance(CALLS[op][name], float):
        value = 10**400
    with pytest.raises(ValueError) as error:
        getattr(ops, op)(**CALLS[op] | {name: value})
    assert f"{op}: {name} must " in str(error.value) and ", got " in str(error.value)


FLAGS = [(op, name) for op in CALLS for name, p in inspect.signature(getattr(ops, op)).parameters.items()
         if p.annotation is bool]  # fmt: skip


@pytest.mark.parametrize("value", [None, "no", 2, 0.5, [True], torch.ones(2, dtype=torch.bool)])
@pytest.mark.parametrize(("op", "name"), FLAGS)
def test_a_flag_is_true_or_false(op, name, value):
    with pytest.raises(ValueError, match=f"{op}: {name} must be True or False, got "):
        getattr(ops, op)(**CALLS[op] | {name: value})
    for one in (1, np.bool_(True), torch.tensor(True)):
        getattr(ops, op)(**CALLS[op] | {name: one})


@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        ("roi_align", {"output_size": 2**40}, "output_size must be at most 2147483647 each"),
        ("roi_align", {"spatial_scale": -0.25}, "spatial_scale must be positive"),
        ("roi_align", {"sampling_ratio": 10**8}, "sampling_ratio must be at most 1024"),
        ("multilevel_roi_align", {"canonical_size": 0}, "canonical_size must be positive"),
        ("multilevel_roi_align", {"canonical_size": -224.0}, "canonical_size must be positive"),
        ("roi_levels", {"canonical_size": 0}, "canonical_size must be positive"),
        ("group_norm", {"eps": -1e-5}, "eps must be at least 0"),
        ("gse_fuse", {"eps": -1e-5}, "eps must be at least 0"),
        ("nms_padded", {"max_keep": 2**40}, "max_keep must be at most 2147483647"),
        ("paste_parsing", {"image_size": (2**40, 2**40)}, "image_size must be at most 2147483647 each"),
        ("paste_parsing", {"semantic_size": (float("inf"),) * 2}, "semantic_size must be a finite number, got inf"),
    ],
)
def test_a_number_out_of_range_is_named(op, change, message):
    with pytest.raises(ValueError, match=f"{op}: {message}"):
        getattr(ops, op)(**CALLS[op] | change)


RAW = torch.ops.rpcnn
RAW_SIZES = {
    "roi_align": lambda n: RAW.roi_align(MAPS, ROIS, 1.0, n, 1, 2, True),
    "roi_align_backward": lambda n: RAW.roi_align_backward(MAPS[:, :, :3, :3], ROIS[:1], 1.0, n, 3, 3, 2, True, False),
    "multilevel_roi_align": lambda n: RAW.multilevel_roi_align([MAPS], ROIS, [1.0], 1, n, 2, True, 224.0, 4, 0.0),
    "multilevel_roi_align_backward": lambda n: RAW.multilevel_roi_align_backward(
        MAPS[:, :, :3, :3], ROIS[:1], [1.0], 1, [n], [3], 2, True, 224.0, 4, 0.0, False
    ),
    "nms_padded": lambda n: RAW.nms_padded(BOXES, SCORES, None, 0.5, n),
    "downsample_add_backward": lambda n: RAW.downsample_add_backward([MAPS], n, 4),
    "paste_parsing": lambda n: RAW.paste_parsing(
        MAPS, BOXES[:1], torch.ones(1, dtype=torch.uint8), None, 8.0, 8.0, n, 8, 0.0, 1.0, True, True
    ),
}


@needs_kernels
@pytest.mark.parametrize("size", [2**40, 2**62, -(2**40)])
@pytest.mark.parametrize("op", RAW_SIZES)
def test_a_raw_operator_names_a_size_that_is_too_large(op, size):
    with pytest.raises(RuntimeError, match=rf"{op}: \w+ must lie in [01]..2147483647, got {size}"):
        RAW_SIZES[op](size)


@needs_kernels
@pytest.mark.parametrize("size", [(float("inf"),) * 2, (float("nan"),) * 2, (float("inf"), 8.0), (7.0, 8.0)])
def test_the_raw_paste_parsing_names_a_semantic_size_without_end(size):
    maps, painted = (MAPS, BOXES[:1]), torch.ones(1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="semantic_height and semantic_width must be finite and cover the image"):
        RAW.paste_parsing(*maps, painted, MAPS[0], *size, 8, 8, 0.5, 0.5, True, True)


@needs_kernels
@pytest.mark.parametrize("pool_logits", [False, True])
def test_the_raw_gradient_of_parsing_loss_reads_no_place_outside_a_cell(pool_logits):
    logits, target = torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8)
    *_, pooled, log_sum, largest = RAW.parsing_loss(logits, target, 2, pool_logits, 255)
    grads = (torch.ones(()), torch.ones_like(pooled))
    got, want = (
        RAW.parsing_loss_backward(*grads, logits, target, log_sum, torch.full_like(largest, place), 2, pool_logits, 255)
        for place in (255, 3)
    )
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_a_batched_box_on_another_device_is_named():
    with pytest.raises(ValueError, match=r"roi_align: boxes\[0\] must be on cpu, got meta"):
        ops.roi_align(MAPS, [BOXES.to("meta")], 2)


@pytest.fixture(params=["kernels", "references"])
def kernels(request, monkeypatch):
    if request.param == "references":
        for example in EXAMPLES.values():
            monkeypatch.setattr(sys.modules[example.function.__module__], "compiled", lambda tensor: False)


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def converted(value, integer, number):
    if isinstance(value, list | tuple):
        return type(value)(converted(item, integer, number) for item in value)
    if isinstance(value, bool | torch.Tensor):
        return value
    return number(value) if isinstance(value, float) else integer(value)


@pytest.mark.parametrize(
    ("integer", "number"),
    [(np.int64, np.float32), (np.uint16, np.float64), (Index, np.float16), (torch.tensor, torch.tensor)],
)
@pytest.mark.parametrize("op", CALLS)
def test_numbers_of_other_libraries_are_numbers(op, integer, number, kernels):
    call, plain = (
        {name: converted(value, i, n) for name, value in CALLS[op].items()}
        for i, n in ((integer, number), (int, lambda value: float(number(value))))
    )
    got, want = getattr(ops, op)(**call), getattr(ops, op)(**plain)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_arrays_are_lists_of_numbers(kernels):
    pooling, pasting = CALLS["multilevel_roi_align"], CALLS["paste_parsing"]
    arrays = {"output_size": np.array([7, 7]), "spatial_scales": np.array(pooling["spatial_scales"])}
    assert torch.equal(ops.multilevel_roi_align(**pooling | arrays), ops.multilevel_roi_align(**pooling))
    got = ops.paste_parsing(**pasting | {"image_size": np.array(pasting["image_size"])})
    torch.testing.assert_close(got, ops.paste_parsing(**pasting), rtol=0, atol=0)


def sized(maps, boxes, scores):
    """Take sizes from shapes, which are SymInts if shapes are dynamic."""
    pooled = ops.roi_align(maps, boxes, (maps.shape[2] // 4, boxes.shape[0]))
    levels = ops.multilevel_roi_align([maps], boxes, maps.shape[3] // 4, [0.5])
    kept, count = ops.nms_padded(boxes[:, 1:], scores, None, 0.5, boxes.shape[0])
    return pooled, levels, kept, count


@needs_kernels
def test_sizes_may_be_symbolic():
    arguments, other = (MAPS, ROIS, SCORES), (torch.ones(1, 2, 12, 16), ROIS[:2], SCORES[:2])
    compiled = torch.compile(sized, fullgraph=True, dynamic=True, backend="aot_eager")
    traced = make_fx(sized, tracing_mode="symbolic")(*arguments)
    for inputs in (arguments, other):
        torch.testing.assert_close(compiled(*inputs), sized(*inputs))
        torch.testing.assert_close(traced(*inputs), sized(*inputs))
