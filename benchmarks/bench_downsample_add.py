"""downsample_add against F.interpolate plus an addition: S2..S6 of an 800×1216 image, 256 channels, float32.

    pytest benchmarks/bench_downsample_add.py --benchmark-only

Bytes: forward, the map and every level read, every level written; backward, the reverse.
"""

import pytest
import torch
import torch.nn.functional as F
from measure import DEVICES, LAYOUTS, Case, Comparison, assert_close, bench, pyramid, size_of

from rpcnn.ops import downsample_add

SIZES = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]


def composition(feature, levels):
    return [p + F.interpolate(feature, p.shape[2:], mode="bilinear", align_corners=False) for p in levels]


def forward(layout, sizes=SIZES):
    def make(device):
        feature, *levels = pyramid(1, 256, [sizes[0], *sizes], layout, device)
        ours, baseline = lambda: downsample_add(feature, levels), lambda: composition(feature, levels)
        check = lambda: assert_close(ours(), baseline(), 1e-5, 1e-5)
        return Comparison(ours, baseline, check, size_of(feature, *levels, *levels))

    return make


def backward(layout):
    def make(device):
        feature, *levels = pyramid(1, 256, [SIZES[0], *SIZES], layout, device)
        feature.requires_grad_()
        grads = pyramid(1, 256, SIZES, layout, device)
        output, baseline_output = downsample_add(feature, levels), composition(feature, levels)
        run = lambda outputs: torch.autograd.grad(outputs, feature, grads, retain_graph=True)[0]
        ours, baseline = lambda: run(output), lambda: run(baseline_output)
        return Comparison(
            ours, baseline, lambda: assert_close(ours(), baseline(), 1e-5, 1e-5), size_of(feature, *grads)
        )

    return make


CASES = [Case("downsample_add", f"forward, {m}", forward(m)) for m in LAYOUTS]
CASES += [Case("downsample_add", f"backward, {m}", backward(m)) for m in LAYOUTS]

HEIGHTS = {h: [(h >> i, h * 3 // 2 >> i) for i in range(5)] for h in (64, 128, 256)}
CASES += [
    Case("downsample_add", f"forward by map height: {h}", forward("contiguous", sizes), sweep=True)
    for h, sizes in HEIGHTS.items()
]


COST = {  # see static.py
    "rpcnn::downsample_add": lambda *a: (1, 0, 0),
    "rpcnn::downsample_add_backward": lambda *a: (1, 0, 0),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_downsample_add(benchmark, case, device):
    bench(benchmark, case, device)
