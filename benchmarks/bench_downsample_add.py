"""downsample_add against F.interpolate plus an addition: S2..S6 of an 800×1216 image, 256 channels, float32."""

import pytest
import torch
import torch.nn.functional as F
from measure import DEVICES, LAYOUTS, measure, pyramid, size_of

from rpcnn.ops import downsample_add

IMAGES, CHANNELS = 1, 256
SIZES = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]


def composition(feature, levels):
    return [p + F.interpolate(feature, p.shape[2:], mode="bilinear", align_corners=False) for p in levels]


CONTENDERS = {"rpcnn": downsample_add, "torch": composition}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("device", DEVICES)
def test_forward(benchmark, device, layout, contender):
    benchmark.group = f"downsample_add forward {layout} {device}"
    feature, *levels = pyramid(IMAGES, CHANNELS, [SIZES[0], *SIZES], layout, device)
    moved = size_of([feature]) + 2 * size_of(levels)
    outputs = measure(benchmark, CONTENDERS[contender], feature, levels, device=device, moved=moved)
    if contender == "torch":
        return  # what ours is compared with
    for out, want in zip(outputs, composition(feature, levels), strict=True):
        torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("device", DEVICES)
def test_backward(benchmark, device, layout, contender):
    benchmark.group = f"downsample_add backward {layout} {device}"
    feature, *levels = pyramid(IMAGES, CHANNELS, [SIZES[0], *SIZES], layout, device)
    feature.requires_grad_()
    outputs = CONTENDERS[contender](feature, levels)
    grads = pyramid(IMAGES, CHANNELS, SIZES, layout, device)
    backward = lambda: torch.autograd.grad(outputs, feature, grads, retain_graph=True)[0]
    grad = measure(benchmark, backward, device=device, moved=size_of([feature, *grads]))
    if contender == "torch":
        return
    want = torch.autograd.grad(composition(feature, levels), feature, grads)[0]
    torch.testing.assert_close(grad, want, rtol=1e-5, atol=1e-5)
