"""gse_fuse against interpolate → group_norm → relu → sum: P2..P6 of one 800×1216 image, 256 channels, float32."""

import pytest
import torch
import torch.nn.functional as F
from measure import DEVICES, LAYOUTS, measure, pyramid, size_of

from rpcnn.ops import gse_fuse

IMAGES, CHANNELS, GROUPS = 1, 256, 32
SIZES = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]


def composition(features, weights, biases, groups):
    total = 0
    for feature, weight, bias in zip(features, weights, biases, strict=True):
        up = F.interpolate(feature, features[0].shape[2:], mode="bilinear", align_corners=True)
        total = total + F.relu(F.group_norm(up, groups, weight, bias))
    return total


CONTENDERS = {"rpcnn": gse_fuse, "torch": composition}


def inputs(layout, device):
    features = pyramid(IMAGES, CHANNELS, SIZES, layout, device)
    weights = [torch.linspace(0.5, 1.5, CHANNELS, device=device) for _ in SIZES]
    biases = [torch.linspace(-0.5, 0.5, CHANNELS, device=device) for _ in SIZES]
    return features, weights, biases


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("device", DEVICES)
def test_forward(benchmark, device, layout, contender):
    benchmark.group = f"gse_fuse forward {layout} {device}"
    tensors = inputs(layout, device)
    moved = 2 * size_of(tensors[0]) + size_of(tensors[0][:1])  # statistics and sum each read the levels
    out = measure(benchmark, CONTENDERS[contender], *tensors, GROUPS, device=device, moved=moved)
    if contender == "rpcnn":
        torch.testing.assert_close(out, composition(*tensors, GROUPS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("device", DEVICES)
def test_backward(benchmark, device, layout, contender):
    benchmark.group = f"gse_fuse backward {layout} {device}"
    tensors = inputs(layout, device)
    leaves = [t.requires_grad_() for group in tensors for t in group]
    out = CONTENDERS[contender](*tensors, GROUPS)
    grad = pyramid(IMAGES, CHANNELS, SIZES[:1], layout, device)[0]
    backward = lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)
    # Every level is read for the ReLU's mask and for the statistics' share, and its gradient written.
    grads = measure(benchmark, backward, device=device, moved=size_of([grad]) + 3 * size_of(tensors[0]))
    if contender == "torch":
        return  # what ours is compared with
    want = torch.autograd.grad(composition(*tensors, GROUPS), leaves, grad)
    for mine, theirs in zip(grads, want, strict=True):
        # In the mean: where the value before the ReLU is within rounding of 0, the two may disagree on its sign.
        assert (mine - theirs).norm() <= 1e-3 * theirs.norm()
