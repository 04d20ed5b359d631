"""decode_proposals against PyTorch's ops: 2000 proposals of each of five levels of 800×1216 pixels, two images.

    pytest benchmarks/bench_decode_proposals.py --benchmark-only

Bytes: index, deltas and anchor of each proposal read, its box and group written.
"""

import pytest
import torch
from bench_grid_anchors import SIZES, STRIDES
from measure import DEVICES, Case, Comparison, assert_close, bench

from rpcnn.ops import decode_proposals, decode_proposals_reference, grid_anchors

IMAGES, TOP = 2, 2000


def proposals(dtype):
    def make(device):
        generator = torch.Generator().manual_seed(0)
        cells = torch.tensor([-8.0, -8, 8, 8]) * torch.tensor(STRIDES)[:, None, None]
        anchors = grid_anchors(cells.expand(-1, 3, -1).contiguous().to(device), STRIDES, SIZES)
        counts = [3 * height * width for height, width in SIZES]
        deltas = [0.3 * torch.randn(IMAGES, n, 4, generator=generator) for n in counts]
        best = [delta[..., 0].topk(min(TOP, delta.shape[1]), 1).indices.to(device) for delta in deltas]
        deltas, sizes = [delta.to(device, dtype) for delta in deltas], [(800, 1216), (768, 1100)]
        run = lambda f: f(deltas, best, anchors, sizes)
        ours, baseline = lambda: run(decode_proposals), lambda: run(decode_proposals_reference)
        check = lambda: assert_close(ours(), baseline(), 1e-5, 1e-3)
        count = sum(chosen.numel() for chosen in best)
        return Comparison(ours, baseline, check, count * (8 + 4 * deltas[0].element_size() + 16 + 16 + 8))

    return make


CASES = [
    Case("decode_proposals", "17,482 proposals", proposals(torch.float32)),
    Case("decode_proposals", "17,482 proposals, bfloat16", proposals(torch.bfloat16)),
]


def cost(deltas, best, anchors, *_):
    """Count one launch. What is not chosen is not read: less than the arguments."""
    count = sum(chosen.numel() for chosen in best)
    given = sum(delta.numel() for delta in deltas) * deltas[0].element_size() + anchors.numel() * 4
    return 1, count * (4 * deltas[0].element_size() + 16) - given, 0


COST = {"rpcnn::decode_proposals": cost}  # see static.py


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_decode_proposals(benchmark, case, device):
    bench(benchmark, case, device)
