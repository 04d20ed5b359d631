"""Neither a training step nor a prediction waits for the GPU: run with tensors that have a device but no values.

Fake CUDA tensors take the forward pass with the losses, in every precision, and predictions; meta tensors take the
whole step, optimizer included. Both refuse `.item()`, `nonzero`, boolean indexing and every other shape that depends
on data; `Trace` also sees copies between devices. What remains outside of what runs here, each on purpose: the
training batch's upload (asynchronous, from pinned memory), the logbook's reading of the losses every `run.log_every`
iterations, the scale that fp16's GradScaler looks at, and the seed of an image's own generator.
"""

import contextlib
import dataclasses

import pytest
import torch
from helpers.models import configured
from helpers.trace import Trace, batch, fake_gpu, network, prediction
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from rpcnn import ops
from rpcnn.config import Config
from rpcnn.inference.soft_nms import soft_nms
from rpcnn.ops._library import CPU_MISSING
from rpcnn.runtime.optimizer import parameter_groups
from rpcnn.variant import RELEASED

pytestmark = pytest.mark.skipif(bool(CPU_MISSING), reason=f"rpcnn._C is not there: {CPU_MISSING}")
SIZE = (128, 160)
LOSSES = {"rpn_objectness", "rpn_box", "box_class", "box_regression", "parsing", "semantic", "rescoring"}

variants = pytest.mark.parametrize("changes", [{}, dataclasses.asdict(RELEASED)], ids=["paper", "released"])
crowds = pytest.mark.parametrize("people", [(2, 1), (0, 3), (0, 0)], ids=str)
precisions = pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)


def synchronizations(trace):
    return [str(op) for op in trace.ops if op.syncs]


def model(device, **changes):
    return network(configured(Config(), box_samples=64, parsing_samples=4, **changes), device=device).train()


@precisions
@crowds
def test_the_losses_need_no_value_from_the_device(people, dtype):
    with fake_gpu():
        step, inputs = model("cuda"), batch(people, SIZE)
        with Trace() as trace, torch.autocast("cuda", dtype or torch.bfloat16, enabled=dtype is not None):
            losses = step(*inputs)
    assert set(losses) == LOSSES and all(loss.device.type == "cuda" for loss in losses.values())
    assert not synchronizations(trace)


@variants
@crowds
def test_the_whole_step_needs_no_value_from_the_device(people, changes):
    step, inputs = model("meta", **changes), batch(people, SIZE, device="meta")
    optimizer = torch.optim.SGD(parameter_groups(step, 1e-4), lr=0.01, momentum=0.9, foreach=True)
    with Trace() as trace:
        sum(step(*inputs).values()).backward()
        torch.nn.utils.clip_grad_norm_(step.parameters(), 10.0)
        optimizer.step()
    assert all(p.grad is not None for p in step.parameters() if p.requires_grad)
    assert not synchronizations(trace)


def test_proposals_and_samples_have_fixed_sizes_on_the_device():
    with fake_gpu():
        step = model("cuda")
        images, targets = batch((2, 1), SIZE)
        anchors = step.rpn(step.fpn(step.backbone(step.normalize_and_pad(images, targets)[0])))
        sizes = [SIZE] * 2
        proposals = step.rpn.propose(*anchors, sizes)
        rois = step.box_head.sample(proposals, targets, [None] * 2)
        boxes, labels = step.parsing_head.sample(rois, sizes, targets, [None] * 2)
    assert [p.shape[0] for p in proposals] == [step.rpn.top_train] * 2
    assert [r.boxes.shape[0] for r in rois] == [64] * 2
    assert [len(b) for b in boxes] == [4] * 2 and labels.shape == (8, 128, 128)


@pytest.mark.parametrize(
    ("dtype", "images", "changes"),
    [
        (None, 1, {}),
        (torch.bfloat16, 3, {}),
        (torch.float16, 1, {}),
        (None, 3, dataclasses.asdict(RELEASED)),
    ],
    ids=["fp32", "bf16", "fp16", "released"],
)
def test_a_prediction_waits_once_to_read_how_many_people_there_are(images, dtype, changes):
    trace = prediction(dtype, configured(Config(), **changes), images=images, size=SIZE)
    (read,) = [op for op in trace.ops if op.syncs]
    assert read.part == "detect" and [t.shape for t in read.inputs] == [(images,)]


@pytest.mark.parametrize("boxes", [10, 100])
def test_soft_nms_reads_once_however_many_boxes_it_selects(boxes):
    with fake_gpu(), Trace(count=boxes) as trace:
        kept, _ = soft_nms(torch.zeros(200, 4, device="cuda"), torch.zeros(200, device="cuda"), max_keep=boxes)
    checks = 2  # that boxes and scores are finite
    assert len(kept) == boxes and len(synchronizations(trace)) == checks + 1


@pytest.mark.parametrize("wrong", ["item", "nonzero", "mask", "copy", "upload", "constant", "list", "nms"])
def test_the_guard_detects_synchronization(wrong):
    actions = {
        "item": lambda x: x.sum().item(),
        "nonzero": lambda x: x.nonzero(),
        "mask": lambda x: x[x > 0],
        "copy": lambda x: x.cpu(),
        "upload": lambda x: torch.ones(5).to(x.device),
        "constant": lambda x: x.new_tensor([0, 1]),
        "list": lambda x: x[[0, 1]],
        "nms": lambda x: ops.nms(x[:, :4], x[:, 0], 0.5),
    }
    refused = DataDependentOutputException, DynamicOutputShapeException
    with fake_gpu(), Trace() as trace:
        x = torch.zeros(5, 5, device="cuda")
        with contextlib.suppress(refused):
            actions[wrong](x)
    assert synchronizations(trace)
