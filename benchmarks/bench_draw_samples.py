"""draw_samples against two calls of topk: 256 of an image's anchors, 512 of its proposals.

    pytest benchmarks/bench_draw_samples.py --benchmark-only

Bytes: matches and random keys read, samples and their matches written.
"""

import pytest
import torch
from measure import DEVICES, Case, Comparison, bench

from rpcnn.ops import draw_samples
from rpcnn.ops.match_boxes import BACKGROUND, IGNORED


def composition(matched, keys, count, max_positive):
    """Draw with PyTorch's ops: the smallest keys of the positives, then the smallest of those and the negatives."""
    best, positives = torch.where(matched >= 0, keys, torch.inf).topk(max_positive, largest=False)
    chosen = torch.zeros_like(matched, dtype=torch.bool).scatter(0, positives, best < torch.inf)
    order = torch.where(chosen, keys, torch.where(matched == BACKGROUND, 1 + keys, torch.inf))
    best, samples = order.topk(count, largest=False)
    there = best < torch.inf
    return torch.where(there, samples, 0), torch.where(there, matched[samples], IGNORED)


def drawing(n, positives, count, max_positive):
    def make(device):
        generator = torch.Generator().manual_seed(0)
        matched = torch.where(torch.rand(n, generator=generator) < positives / n, 2, BACKGROUND)
        matched[::20] = IGNORED
        arguments = matched.to(device), torch.rand(n, generator=generator).to(device), count, max_positive
        ours, baseline = (lambda f=f: f(*arguments) for f in (draw_samples, composition))

        def check():  # 1 + key has fewer digits, so that the order of neighbors may differ
            assert ours()[0].sort().values.equal(baseline()[0].sort().values) and ours()[1].equal(baseline()[1])

        return Comparison(ours, baseline, check, 12 * n + 16 * count)

    return make


CASES = [
    Case("draw_samples", "256 of 243,000 anchors", drawing(243_000, 200, 256, 128)),
    Case("draw_samples", "512 of 2,006 proposals", drawing(2006, 300, 512, 128)),
]


def cost(matched, *_):
    """Count three launches, sort keys written, and keys with indices read and written in four passes; see static.py."""
    return 3, len(matched) * (4 + 4 + 8 + 7 * 12), 0


COST = {"rpcnn::draw_samples": cost}  # see static.py


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_draw_samples(benchmark, case, device):
    bench(benchmark, case, device)
