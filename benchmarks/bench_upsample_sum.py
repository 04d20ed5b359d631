"""upsample_sum against the sum of F.interpolate: P2..P6 of two 800×1216 images, 256 channels, float32."""

import functools

import pytest
import torch
import torch.nn.functional as F
from measure import DEVICES, LAYOUTS, measure, pyramid, size_of

from rpcnn.ops import upsample_sum

IMAGES, CHANNELS = 2, 256
SIZES = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]


def composition(features):
    size = features[0].shape[2:]
    resized = (F.interpolate(f, size, mode="bilinear", align_corners=False) for f in features[1:])
    return functools.reduce(torch.add, resized, features[0])


CONTENDERS = {"rpcnn": upsample_sum, "torch": composition}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("device", DEVICES)
def test_forward(benchmark, device, layout, contender):
    benchmark.group = f"upsample_sum forward {layout} {device}"
    features = pyramid(IMAGES, CHANNELS, SIZES, layout, device)
    moved = size_of(features) + size_of(features[:1])
    out = measure(benchmark, CONTENDERS[contender], features, device=device, moved=moved)
    if contender == "rpcnn":
        torch.testing.assert_close(out, composition(features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("device", DEVICES)
def test_backward(benchmark, device, layout, contender):
    benchmark.group = f"upsample_sum backward {layout} {device}"
    features = [f.requires_grad_() for f in pyramid(IMAGES, CHANNELS, SIZES, layout, device)]
    out = CONTENDERS[contender](features)
    grad = pyramid(IMAGES, CHANNELS, SIZES[:1], layout, device)[0]
    # The gradient of level 0 is the incoming one: PyTorch hands it on without a copy, so it is not counted.
    backward = lambda: torch.autograd.grad(out, features[1:], grad, retain_graph=True)
    grads = measure(benchmark, backward, device=device, moved=size_of([grad, *features[1:]]))
    if contender == "torch":
        return  # what ours is compared with
    want = torch.autograd.grad(composition(features), features[1:], grad)
    for mine, theirs in zip(grads, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)
