"""upsample_sum against the sum of F.interpolate: P2..P6 of 800×1216 images, 256 channels, float32.

    pytest benchmarks/bench_upsample_sum.py --benchmark-only

Bytes: forward, every level read and one map written; backward, the gradient read and every coarser level's written.
"""

import functools

import pytest
import torch
import torch.nn.functional as F
from measure import DEVICES, LAYOUTS, Case, Comparison, assert_close, bench, pyramid, size_of

from rpcnn.ops import upsample_sum

CHANNELS = 256
SIZES = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]


def composition(features):
    size = features[0].shape[2:]
    resized = (F.interpolate(f, size, mode="bilinear", align_corners=False) for f in features[1:])
    return functools.reduce(torch.add, resized, features[0])


def forward(layout, images=2, sizes=SIZES):
    def make(device):
        features = pyramid(images, CHANNELS, sizes, layout, device)
        ours, baseline = lambda: upsample_sum(features), lambda: composition(features)
        check = lambda: assert_close(ours(), baseline(), 1e-5, 1e-5)
        return Comparison(ours, baseline, check, size_of(*features, features[0]))

    return make


def forward_backward(layout):
    def make(device):
        features = pyramid(2, CHANNELS, SIZES, layout, device, requires_grad=True)
        grad = pyramid(2, CHANNELS, SIZES[:1], layout, device)[0]
        # The gradient of level 0 is the incoming one: neither side copies it, so it is not counted.
        both = lambda f: torch.autograd.grad(f(features), features, grad)
        ours, baseline = lambda: both(upsample_sum), lambda: both(composition)
        check = lambda: assert_close(ours(), baseline(), 1e-4, 1e-3)
        return Comparison(ours, baseline, check, size_of(*features, features[0], grad, *features[1:]))

    return make


CASES = [Case("upsample_sum", f"forward, {m}", forward(m)) for m in LAYOUTS]
CASES += [Case("upsample_sum", f"forward + backward, {m}", forward_backward(m)) for m in LAYOUTS]
HEIGHTS = {h: [(h >> i, h * 3 // 2 >> i) for i in range(5)] for h in (64, 128, 256)}
CASES += [
    Case("upsample_sum", f"forward by map height: {h}", forward("contiguous", 1, sizes), sweep=True)
    for h, sizes in HEIGHTS.items()
]


def wide(t) -> int:
    """Bytes of a map in the type that kernels add in."""
    return t.numel() * max(t.element_size(), 4)


def adjoint_launches(grad, levels) -> int:
    """Along x, and along y where a level has other rows than grad."""
    return 1 + any(f.shape[2] != grad.shape[2] for f in levels)


def adjoint_bytes(grad, levels) -> int:
    """Maps between the two launches, as tall as grad and as wide as the level: written and read."""
    return 2 * sum(wide(grad) // grad.shape[3] * f.shape[3] for f in levels if f.shape[2] != grad.shape[2])


COST = {  # see static.py
    "rpcnn::upsample_sum": lambda *a: (1, 0, 0),
    # Without ReLU the levels themselves are not read.
    "rpcnn::upsample_sum_backward": lambda grad, levels, align_corners, relu: (
        adjoint_launches(grad, levels),
        adjoint_bytes(grad, levels) - (0 if relu else size_of(*levels)),
        0,
    ),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_upsample_sum(benchmark, case, device):
    bench(benchmark, case, device)
