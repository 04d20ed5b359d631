"""grid_anchors against PyTorch's ops: the anchors of five levels of 800×1216 pixels.

    pytest benchmarks/bench_grid_anchors.py --benchmark-only

Bytes: the anchors written.
"""

import pytest
import torch
from measure import DEVICES, Case, Comparison, bench

from rpcnn.ops import grid_anchors, grid_anchors_reference

STRIDES = (4, 8, 16, 32, 64)
SIZES = [(-(-800 // stride), -(-1216 // stride)) for stride in STRIDES]


def five_levels(device):
    half = torch.tensor([[12.0, 6.0], [8.0, 8.0], [6.0, 12.0]]) * torch.tensor(STRIDES)[:, None, None]
    cells = torch.cat([-half, half], 2).to(device)
    ours, baseline = (lambda f=f: f(cells, STRIDES, SIZES) for f in (grid_anchors, grid_anchors_reference))
    check = lambda: torch.testing.assert_close(ours(), baseline(), rtol=0, atol=0)
    return Comparison(ours, baseline, check, 16 * len(ours()))


CASES = [Case("grid_anchors", "five levels, three ratios", five_levels)]
COST = {"rpcnn::grid_anchors": lambda *_: (1, 0, 0)}  # see static.py


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_grid_anchors(benchmark, case, device):
    bench(benchmark, case, device)
