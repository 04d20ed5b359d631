"""What every op says to arguments of another type, and that numpy's numbers are numbers."""

import importlib
import inspect

import numpy as np
import pytest
import torch
from helpers.layouts import needs_kernels
from torch.fx.experimental.proxy_tensor import make_fx

from rpcnn import ops

MAPS, SMALL = torch.arange(128.0).view(1, 2, 8, 8) / 128, torch.ones(1, 2, 4, 4)
BOXES, SCORES = torch.tensor([[0.0, 0, 4, 4], [1, 0, 5, 4], [4, 4, 8, 8]]), torch.tensor([0.5, 0.9, 0.1])
ROIS = torch.cat([torch.zeros(3, 1), BOXES], 1)
VECTORS = [torch.ones(2), torch.ones(2)]
LABELS = torch.arange(32).view(2, 4, 4) % 3
PEOPLE = torch.arange(96.0).view(3, 2, 4, 4).sin()
CALLS = {
    "roi_align": {
        "input": MAPS,
        "boxes": ROIS,
        "output_size": (2, 3),
        "spatial_scale": 0.5,
        "sampling_ratio": 2,
    },
    "multilevel_roi_align": {
        "features": [MAPS, SMALL],
        "boxes": ROIS,
        "output_size": 2,
        "spatial_scales": [0.5, 0.25],
        "sampling_ratio": 2,
        "canonical_size": 4.0,
        "canonical_level": 2,
        "area_offset": 1.0,
    },
    "roi_levels": {
        "boxes": BOXES,
        "spatial_scales": [0.5, 0.25],
        "canonical_size": 4.0,
        "canonical_level": 2,
        "area_offset": 1.0,
    },
    "nms": {"boxes": BOXES, "scores": SCORES, "iou_threshold": 0.5, "max_keep": 2},
    "batched_nms": {"boxes": BOXES, "scores": SCORES, "idxs": LABELS[0, 0, :3], "iou_threshold": 0.5, "max_keep": 2},
    "nms_padded": {"boxes": BOXES, "scores": SCORES, "idxs": LABELS[0, 0, :3], "iou_threshold": 0.5, "max_keep": 2},
    "upsample_sum": {"features": [MAPS, SMALL]},
    "gse_fuse": {"features": [MAPS, SMALL], "gn_weights": VECTORS, "gn_biases": VECTORS, "num_groups": 2, "eps": 0.5},
    "downsample_add": {"feature": MAPS, "pyramid": [MAPS, SMALL]},
    "parsing_miou": {"logits_or_labels": LABELS, "target": LABELS, "num_classes": 3, "ignore_index": 2},
    "paste_parsing": {
        "probabilities": PEOPLE,
        "boxes": BOXES,
        "image_size": (8, 9),
        "painted": torch.tensor([True, False, True]),
        "semantic": PEOPLE[0],
        "semantic_size": (8.0, 9.0),
        "semantic_weight": 0.5,
        "semantic_gate": 0.25,
    },
}
OPTIONAL = {  # arguments that None is right for
    "max_keep": ("nms", "batched_nms"),
    "idxs": ("nms_padded",),
    "painted": ("paste_parsing",),
    "semantic": ("paste_parsing",),
    "semantic_size": ("paste_parsing",),
    "num_classes": ("parsing_miou",),  # refused with another message: labels do not tell it
}
WRONG = {
    torch.Tensor: [None, "x", 1.5, [[0.0]], np.zeros((3, 4))],
    list: [None, 1.5, torch.tensor(1.0)],
    tuple: [None, "ab", 1.5, (1,), (1, 2, 3), (1, None)],
    int: [None, "2", 1.5, [2], np.float64(2.0), np.zeros(2)],
    float: [None, "0.5", [0.5], 1j, np.zeros(2), torch.zeros(2)],
}


def wrong_calls():
    for op, call in CALLS.items():
        for name, value in call.items():
            for wrong in WRONG[type(value)]:
                # A list of tensors is right where boxes may be one per image: its items are looked at below.
                if (wrong is None and op in OPTIONAL.get(name, ())) or (name == "boxes" and isinstance(wrong, list)):
                    continue
                yield op, name, name, wrong
            if isinstance(value, list):
                for wrong in WRONG[type(value[1])]:
                    yield op, name, f"{name}[1]", [value[0], wrong]
        if "boxes" in call and op in ("roi_align", "multilevel_roi_align"):
            for wrong in WRONG[torch.Tensor]:
                yield op, "boxes", "boxes[0]", [wrong]


def test_every_op_is_here():
    public = {name for name in ops.__all__ if not name.endswith("_reference")}
    assert public == set(CALLS)
    for op, call in CALLS.items():
        flags = {"aligned", "relu", "align_corners", "paint_labels", "with_people"}
        assert set(inspect.signature(getattr(ops, op)).parameters) - flags == set(call)


@pytest.mark.parametrize(("op", "name", "named", "wrong"), list(wrong_calls()), ids=str)
def test_an_argument_of_another_type_is_named(op, name, named, wrong):
    with pytest.raises(ValueError) as error:
        getattr(ops, op)(**CALLS[op] | {name: wrong})
    assert f"{op}: {named} must be " in str(error.value) and ", got " in str(error.value)


def test_a_batched_box_on_another_device_is_named():
    with pytest.raises(ValueError, match=r"roi_align: boxes\[0\] must be on cpu, got meta"):
        ops.roi_align(MAPS, [BOXES.to("meta")], 2)


@pytest.fixture(params=["kernels", "references"])
def kernels(request, monkeypatch):
    if request.param == "references":
        for name in ("roi_align", "multilevel_roi_align", "nms", "parsing_miou", "paste_parsing", "gse_fuse"):
            monkeypatch.setattr(importlib.import_module(f"rpcnn.ops.{name}"), "compiled", lambda tensor: False)


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def converted(value, integer, number):
    if isinstance(value, torch.Tensor) or (isinstance(value, list) and isinstance(value[0], torch.Tensor)):
        return value
    if isinstance(value, list | tuple):
        return type(value)(converted(item, integer, number) for item in value)
    return number(value) if isinstance(value, float) else integer(value)


@pytest.mark.parametrize(
    ("integer", "number"),
    [(np.int64, np.float32), (np.uint8, np.float64), (Index, np.float16), (torch.tensor, torch.tensor)],
)
@pytest.mark.parametrize("op", CALLS)
def test_numbers_of_other_libraries_are_numbers(op, integer, number, kernels):
    call = {name: converted(value, integer, number) for name, value in CALLS[op].items()}
    got, want = getattr(ops, op)(**call), getattr(ops, op)(**CALLS[op])
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_arrays_are_lists_of_numbers(kernels):
    call = CALLS["multilevel_roi_align"]
    got = ops.multilevel_roi_align(**call | {"output_size": np.array([2, 2]), "spatial_scales": np.array([0.5, 0.25])})
    assert torch.equal(got, ops.multilevel_roi_align(**call))
    got = ops.paste_parsing(**CALLS["paste_parsing"] | {"image_size": np.array([8, 9])})
    torch.testing.assert_close(got, ops.paste_parsing(**CALLS["paste_parsing"]), rtol=0, atol=0)


def sized(maps, boxes, scores):
    """Sizes that come from shapes: SymInts where shapes are dynamic."""
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
