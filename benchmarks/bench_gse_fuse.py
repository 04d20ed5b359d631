"""gse_fuse against up-sampling, GroupNorm, ReLU and addition: P2..P6 of one 800×1216 image, 256 channels, float32.

    pytest benchmarks/bench_gse_fuse.py --benchmark-only

With the 1×1 convolutions of GSE-FPN, the baseline convolves the up-sampled maps, as in the paper's figure; ours
convolves the low-resolution ones, which gives the same result. With one level the op is GroupNorm and ReLU, here on the
parsing branch's maps of 20 people.

Bytes, without convolutions: forward, every level read twice (statistics, sum) and one map written; backward, the
gradient and every level read, every level's gradient written, and each level read once more for the gradient through
the statistics.
"""

import pytest
import torch
import torch.nn.functional as F
from bench_upsample_sum import adjoint_bytes, adjoint_launches, wide
from measure import DEVICES, LAYOUTS, Case, Comparison, bench, pyramid, size_of

from rpcnn.ops import gse_fuse

CHANNELS, GROUPS = 256, 32
SIZES = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]


def composition(features, weights, biases, kernels=None):
    total = 0
    for i, (feature, weight, bias) in enumerate(zip(features, weights, biases, strict=True)):
        up = F.interpolate(feature, features[0].shape[2:], mode="bilinear", align_corners=True) if i else feature
        up = F.conv2d(up, kernels[i]) if kernels else up
        total = total + F.relu(F.group_norm(up, GROUPS, weight, bias))
    return total


def convolved(features, weights, biases, kernels):
    return gse_fuse([F.conv2d(f, k) for f, k in zip(features, kernels, strict=True)], weights, biases, GROUPS)


def comparison(layout, convolutions, with_backward, sizes=SIZES, images=1, channels=CHANNELS):
    def make(device):
        features = pyramid(images, channels, sizes, layout, device, requires_grad=with_backward)
        weights = [torch.linspace(0.5, 1.5, channels, device=device, requires_grad=with_backward) for _ in sizes]
        biases = [torch.linspace(-0.5, 0.5, channels, device=device, requires_grad=with_backward) for _ in sizes]
        groups = [features, weights, biases]
        if convolutions:
            generator = torch.Generator().manual_seed(1)
            kernels = [torch.randn(channels, channels, 1, 1, generator=generator) / 16 for _ in sizes]
            groups.append([k.to(device).requires_grad_(with_backward) for k in kernels])
        (grad,) = pyramid(images, channels, sizes[:1], layout, device)
        leaves = [t for group in groups for t in group]
        run = lambda out: [out, *torch.autograd.grad(out, leaves, grad)] if with_backward else [out]
        ours = lambda: run(convolved(*groups) if convolutions else gse_fuse(*groups, GROUPS))
        baseline = lambda: run(composition(*groups))

        def check():
            # If a value before the ReLU is within rounding of 0, ours and the baseline may disagree on its sign. So
            # both are compared with the composition in float64, and ours may have at most twice the baseline's error.
            wide = [[t.detach().double().requires_grad_(with_backward) for t in group] for group in groups]
            exact = composition(*wide)
            exact = (
                [exact, *torch.autograd.grad(exact, [t for g in wide for t in g], grad.double())]
                if with_backward
                else [exact]
            )
            for a, b, true in zip(ours(), baseline(), exact, strict=True):
                error, allowed = (a - true).norm(), 2 * (b - true).norm() + 1e-6 * true.norm()
                assert error <= max(allowed, 1e-3 * true.norm())

        moved = 2 * size_of(*features) + size_of(grad)
        moved += with_backward * (3 * size_of(*features) + size_of(grad))
        return Comparison(ours, baseline, check, 0 if convolutions else moved)

    return make


PARTS = [(convs, backward, layout) for convs in (False, True) for backward in (False, True) for layout in LAYOUTS]
CASES = [
    Case(
        "gse_fuse",
        f"{'with 1×1 convs, ' if convs else ''}{'forward + backward' if backward else 'forward'}, {layout}",
        comparison(layout, convs, backward),
    )
    for convs, backward, layout in PARTS
]
CASES += [
    Case(
        "gse_fuse",
        f"one level [20, 512, 32, 32], {'forward + backward' if backward else 'forward'}, {layout}",
        comparison(layout, False, backward, [(32, 32)], 20, 512),
    )
    for backward in (False, True)
    for layout in LAYOUTS
]
HEIGHTS = {h: [(h >> i, h * 3 // 2 >> i) for i in range(5)] for h in (64, 128, 256)}
CASES += [
    Case("gse_fuse", f"forward by map height: {h}", comparison("channels_last", False, False, sizes), sweep=True)
    for h, sizes in HEIGHTS.items()
]


def gse_fuse_backward(grad, levels, *_):
    """E of the other sizes is written and read twice, the gradient read twice more for levels of its own size.

    Every level is read for the ReLU's mask, the moments and the gradient; one of grad's size for the latter two only.
    """
    others = [f for f in levels if f.shape != grad.shape]
    moved = adjoint_bytes(grad, others) + 3 * sum(map(wide, others)) + size_of(*levels) + size_of(*others)
    moved += (2 * (len(levels) - len(others)) - (not others)) * size_of(grad)
    return (adjoint_launches(grad, others) if others else 0) + 3, moved, 0


COST = {  # see static.py
    "rpcnn::gse_fuse": lambda levels, *a: (4, size_of(*levels), 0),
    "rpcnn::gse_fuse_backward": gse_fuse_backward,
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gse_fuse(benchmark, case, device):
    bench(benchmark, case, device)
