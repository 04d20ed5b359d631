"""group_norm against PyTorch's GroupNorm, addition and ReLU, float32.

    pytest benchmarks/bench_group_norm.py --benchmark-only

The maps are those of the parsing branch (20 people, 512 channels, 32×32) and of the pyramid's finest level (256
channels, 200×304). Bytes: forward, the map read twice (statistics, pass) and written once, a residual read once;
backward, map and gradient read twice, the map's gradient written.
"""

import pytest
import torch
import torch.nn.functional as F
from measure import DEVICES, LAYOUTS, Case, Comparison, bench, pyramid, size_of

from rpcnn.ops import group_norm

GROUPS = 32
MAPS = {"[20, 512, 32, 32]": (20, 512, (32, 32)), "[2, 256, 200, 304]": (2, 256, (200, 304))}


def composition(x, weight, bias, relu, residual):
    out = F.group_norm(x, GROUPS, weight, bias)
    out = out if residual is None else out + residual
    return F.relu(out) if relu else out


def comparison(layout, shape, relu, with_residual, with_backward):
    images, channels, size = shape

    def make(device):
        maps = pyramid(images, channels, [size] * (1 + with_residual), layout, device, requires_grad=with_backward)
        (grad,) = pyramid(images, channels, [size], layout, device)
        ramp = torch.linspace(-0.5, 0.5, channels, device=device)
        vectors = [(ramp + 1).requires_grad_(with_backward), ramp.clone().requires_grad_(with_backward)]
        residual, leaves = (maps[1] if with_residual else None), [*maps, *vectors]
        run = lambda out: [out, *torch.autograd.grad(out, leaves, grad)] if with_backward else [out]
        ours = lambda: run(group_norm(maps[0], GROUPS, *vectors, relu=relu, residual=residual))
        baseline = lambda: run(composition(maps[0], *vectors, relu=relu, residual=residual))

        def check():  # of values within rounding of 0, some of 10^7, ReLU's mask may differ
            for a, b in zip(ours(), baseline(), strict=True):
                different = (a - b).abs() > 1e-3 * (b.abs() + b.abs().mean())
                assert int(different.sum()) <= 1e-6 * b.numel()
                assert (a - b).masked_fill(different, 0).norm() <= 1e-4 * b.norm()

        moved = (3 + with_residual) * size_of(maps[0]) + with_backward * 5 * size_of(maps[0])
        return Comparison(ours, baseline, check, moved)

    return make


KINDS = {"ReLU": (True, False), "residual": (False, True)}
CASES = [
    Case(
        "group_norm",
        f"{kind}, {shape}, {'forward + backward' if backward else 'forward'}, {layout}",
        comparison(layout, MAPS[shape], *KINDS[kind], backward),
    )
    for kind in KINDS
    for shape in MAPS
    for backward in (False, True)
    for layout in LAYOUTS
]

COST = {  # see static.py
    "rpcnn::group_norm": lambda x, *a: (2, size_of(x), 0),
    "rpcnn::group_norm_backward": lambda grad, x, *a: (2, size_of(grad, x), 0),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_group_norm(benchmark, case, device):
    bench(benchmark, case, device)
