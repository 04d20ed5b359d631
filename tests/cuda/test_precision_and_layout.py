"""The paper's training step stays in the precision of autocast and in channels_last, forward and backward, op by op.

Traced on fake CUDA tensors at the paper's size, see `helpers.trace`.
"""

import functools

import pytest
import torch
from helpers.models import tiny
from helpers.trace import Trace, spec, training_step

from rpcnn.ops._library import CPU_MISSING

pytestmark = pytest.mark.skipif(bool(CPU_MISSING), reason=f"rpcnn._C is not there: {CPU_MISSING}")
halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
PRODUCTS = {"aten.convolution", "aten.convolution_backward", "aten.mm", "aten.addmm", "aten.bmm"}
ATTENTION = {
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_efficient_attention_backward",
}
# Layouts of feature maps that another layout would not make cheaper:
OTHER_LAYOUTS = {
    # fc6 reads the RoI features in the order of its weights, which are as many: 12.8 million
    ("aten.clone", "box"),
    ("rpcnn.multilevel_roi_align_backward", "backward"),
    # softmax over classes: a view [R, h, w, K]
    ("aten._softmax", "losses"),
    ("aten._softmax_backward_data", "backward"),
}


@functools.cache
def step(dtype):
    return training_step(dtype)


def is_feature_map(tensor):
    """Of a map of features [N, C, h, w], not of weights, images or class scores."""
    return len(tensor.shape) == 4 and min(tensor.shape[2:]) >= 7 and tensor.shape[1] > 20


def shown(ops):
    return [str(op) for op in ops]


@halves
def test_products_are_computed_in_the_dtype_of_autocast(dtype):
    products = [op for op in step(dtype).ops if op.name in PRODUCTS | ATTENTION]
    assert {op.name for op in products} >= PRODUCTS - {"aten.bmm"} | ATTENTION
    others = [op for op in products for tensor in op.inputs[:2] if tensor.dtype != dtype]
    assert not shown(others)


@halves
def test_no_group_norm_of_torch_is_left(dtype):
    assert not shown(op for op in step(dtype).ops if "group_norm" in op.name and op.name.startswith("aten"))


@halves
def test_feature_maps_are_never_float32(dtype):
    launched = [op for op in step(dtype).ops if op.launches and (op.name, op.part) not in OTHER_LAYOUTS]
    wide = lambda op: any(is_feature_map(t) and t.dtype == torch.float32 for t in op.outputs)
    assert not shown(filter(wide, launched))


@halves
def test_feature_maps_are_always_channels_last(dtype):
    last = {"channels_last", "any"}
    sliced = last | {"strided"}  # of channels: the gradient of torch.cat
    has_other = lambda tensors, layouts: any(is_feature_map(t) and t.layout not in layouts for t in tensors)
    launched = [op for op in step(dtype).ops if op.launches and (op.name, op.part) not in OTHER_LAYOUTS]
    assert not shown(op for op in launched if has_other(op.outputs, last) or has_other(op.inputs, sliced))


BACKBONE = ("model/fuse.py", "model/resnet.py", "model/residual.py")


@halves
def test_the_backbone_already_keeps_dtype_and_layout(dtype):
    maps = [
        tensor
        for op in step(dtype).ops
        if op.launches and op.line.startswith(BACKBONE) and op.part == "encode"
        for tensor in op.outputs
        if is_feature_map(tensor) and tensor.dtype != torch.int64
    ]
    assert len(maps) > 100
    assert {tensor.dtype for tensor in maps} == {dtype} and {tensor.layout for tensor in maps} == {"channels_last"}


@halves
def test_frozen_weights_are_not_folded_again_in_every_step(dtype):
    launched = [op for op in step(dtype).ops if op.launches and op.line.startswith("model/fuse.py")]
    folded = [op for op in launched if op.name == "aten.mul"]
    assert len(folded) == 53 - 11  # convolutions of ResNet-50 without those of the stem and of C2
    assert not shown(op for op in launched if op.name == "aten._to_copy" and len(op.inputs[0].shape) == 1)


def test_the_step_has_no_more_launches_than_last_time():
    assert sum(op.launches for op in step(torch.bfloat16).ops) <= 957


# --- the instrument --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_walking_the_graph_calls_the_ops_that_the_engine_calls(dtype):
    """On the CPU, where there is an engine."""
    model = tiny(backbone_norm="frozen_bn", freeze_at=2).train()
    batch = torch.randn(2, 3, 64, 96)
    counts = []
    for engine in (True, False):
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            loss = sum(feature.float().square().mean() for feature in model.gse(model.fpn(model.backbone(batch)))[1])
        with Trace() as trace:
            loss.backward() if engine else trace.backward(loss)
        launched = [op for op in trace.ops if op.launches and op.name != "aten.ones_like"]
        counts.append(sorted((op.name.rstrip("_"), [t.shape for t in op.outputs]) for op in launched))
    assert len(counts[0]) > 100 and counts[0] == counts[1]


@pytest.mark.parametrize(
    ("shape", "strides", "layout"),
    [
        ((2, 8, 4, 4), (128, 16, 4, 1), "contiguous"),
        ((2, 8, 4, 4), (128, 1, 32, 8), "channels_last"),
        ((2, 8, 1, 1), (8, 1, 8, 8), "any"),
        ((2, 8, 4, 4), (256, 1, 64, 16), "strided"),
        ((2, 8, 4), (32, 4, 1), ""),
    ],
)
def test_layouts_have_names(shape, strides, layout):
    assert spec(torch.empty_strided(shape, strides)).layout == layout
