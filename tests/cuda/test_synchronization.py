"""A training step never synchronizes with the GPU: run with tensors that have a device but no values.

Fake CUDA tensors take the forward pass with the losses, in every precision. Autograd's engine asks a fake CUDA device
for its streams, which needs a GPU, so the whole step, backward and optimizer included, runs on meta tensors, which
take the same way through the model. Both refuse `.item()`, `nonzero`, boolean indexing and every other shape that
depends on data; `NoCopies` refuses copies between devices. What remains outside of what runs here, each on purpose:
the batch's own upload (asynchronous, from pinned memory), the logbook's reading of the losses every `run.log_every`
iterations, the scale that fp16's GradScaler looks at, and the seed of an image's own generator.
"""

import dataclasses

import pytest
import torch
from helpers.models import configured
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rpcnn import ops
from rpcnn.config import Config
from rpcnn.model.build import build_model
from rpcnn.ops._library import CPU_MISSING, CUDA_MISSING
from rpcnn.runtime.optimizer import parameter_groups
from rpcnn.variant import RELEASED

pytestmark = pytest.mark.skipif(
    bool(CPU_MISSING or CUDA_MISSING), reason=f"rpcnn._C_cuda is not there: {CPU_MISSING or CUDA_MISSING}"
)
IMAGES, HEIGHT, WIDTH = 2, 128, 160
LOSSES = {"rpn_objectness", "rpn_box", "box_class", "box_regression", "parsing", "semantic", "rescoring"}


class NoCopies(TorchDispatchMode):
    """Raise RuntimeError at an op with tensors on two devices; zero-dimensional CPU tensors are allowed."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        devices = {t.device.type for t in tensors if t.dim() or function.overloadpacket in COPIES}
        if len(devices) > 1:
            raise RuntimeError(f"{function} moves data between {' and '.join(sorted(devices))}")
        return result


COPIES = {torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten._copy_from}


def batch(device, people=(2, 1)):
    """Images and targets as the loader puts them on the device."""
    with torch.device(device):
        images = [torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8) for _ in range(IMAGES)]
        targets = [
            {
                "boxes": torch.zeros(n, 4),
                "person_maps": torch.zeros(n, HEIGHT, WIDTH, dtype=torch.uint8),
                "label_map": torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8),
            }
            for n in people
        ]
    return images, targets


def model(device, **changes):
    config = configured(Config(), box_samples=64, parsing_samples=4, **changes)
    with torch.device(device):
        return build_model(config, num_classes=20).train()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("people", [(2, 1), (0, 3), (0, 0)], ids=str)
def test_the_losses_need_no_value_from_the_device(people, dtype):
    with FakeTensorMode():
        network, inputs = model("cuda"), batch("cuda", people)
        with NoCopies(), torch.autocast("cuda", dtype or torch.bfloat16, enabled=dtype is not None):
            losses = network(*inputs)
    assert set(losses) == LOSSES and all(loss.device.type == "cuda" for loss in losses.values())


@pytest.mark.parametrize("changes", [{}, dataclasses.asdict(RELEASED)], ids=["paper", "released"])
@pytest.mark.parametrize("people", [(2, 1), (0, 3), (0, 0)], ids=str)
def test_the_whole_step_needs_no_value_from_the_device(people, changes):
    network, inputs = model("meta", **changes), batch("meta", people)
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-4), lr=0.01, momentum=0.9, foreach=True)
    with NoCopies():
        sum(network(*inputs).values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_proposals_and_samples_have_fixed_sizes_on_the_device():
    with FakeTensorMode():
        network = model("cuda")
        images, targets = batch("cuda")
        anchors = network.rpn(network.fpn(network.backbone(network.normalize_and_pad(images, targets)[0])))
        sizes = [(HEIGHT, WIDTH)] * IMAGES
        proposals = network.rpn.propose(*anchors, sizes)
        rois = network.box_head.sample(proposals, targets, [None] * IMAGES)
        boxes, labels = network.parsing_head.sample(rois, sizes, targets, [None] * IMAGES)
    assert [p.shape[0] for p in proposals] == [network.rpn.top_train] * IMAGES
    assert [r.boxes.shape[0] for r in rois] == [64] * IMAGES
    assert [len(b) for b in boxes] == [4] * IMAGES and labels.shape == (8, 128, 128)


@pytest.mark.parametrize("wrong", ["item", "nonzero", "mask", "copy", "upload", "nms"])
def test_the_guard_detects_synchronization(wrong):
    actions = {
        "item": lambda x: x.sum().item(),
        "nonzero": lambda x: x.nonzero(),
        "mask": lambda x: x[x > 0],
        "copy": lambda x: x.cpu(),
        "upload": lambda x: torch.ones(5).to(x.device),
        "nms": lambda x: ops.nms(x[:, :4], x[:, 0], 0.5),
    }
    with FakeTensorMode(), NoCopies():
        x = torch.zeros(5, 5, device="cuda")
        refusals = RuntimeError, DataDependentOutputException, DynamicOutputShapeException
        with pytest.raises(refusals, match=r"moves data between|aten\.(_local_scalar|nonzero|index)|rpcnn\.nms"):
            actions[wrong](x)
