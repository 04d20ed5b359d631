"""nms and batched_nms against torchvision: proposals of an RPN, and detections in many classes.

    pytest benchmarks/bench_nms.py --benchmark-only

Bytes are negligible here (20 per box): the work is one IoU test per kept box and later box of its group.
"""

import pytest
import torch
import torchvision
from measure import DEVICES, Case, Comparison, bench

from rpcnn.ops import batched_nms, nms

THRESHOLD = 0.7  # the RPN's
BAND = 8192  # kBand in csrc/cuda/nms_kernel.cuh, the boxes of one band


def proposals(count, device):
    """Make boxes in 800×1333 pixels, in clusters of eight on average, and their scores."""
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(max(count // 8, 1), 4, generator=generator) * torch.tensor([1333.0, 800, 200, 300])
    places = places[torch.randint(0, len(places), (count,), generator=generator)]
    center = places[:, :2] + 8 * torch.randn(count, 2, generator=generator)
    size = (20 + places[:, 2:]) * (0.85 + 0.3 * torch.rand(count, 2, generator=generator))
    boxes = torch.cat([center - size / 2, center + size / 2], 1)
    return boxes.to(device), torch.rand(count, generator=generator).to(device)


def single(count, calls=1):
    def make(device):
        boxes, scores = proposals(count, device)
        ours = lambda: nms(boxes, scores, THRESHOLD)
        baseline = lambda: torchvision.ops.nms(boxes, scores, THRESHOLD)

        def check():
            # In float64, since torchvision rounds the threshold and the IoU to float32. Limited, since 50,000 boxes
            # take it minutes.
            exact = min(count, 12_000)
            some = boxes[:exact], scores[:exact]
            assert torch.equal(nms(*some, THRESHOLD), torchvision.ops.nms(*(t.double() for t in some), THRESHOLD))
            kept, baseline_kept = set(ours().tolist()), set(baseline().tolist())
            assert len(kept ^ baseline_kept) <= len(kept) // 1000

        return Comparison(ours, baseline, check, calls=calls)

    return make


def batched(groups, threshold):
    """Compare batched_nms on groups with the given numbers of boxes."""

    def make(device):
        boxes, scores = proposals(sum(groups), device)
        idxs = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(groups)).to(device)
        ours = lambda: batched_nms(boxes, scores, idxs, threshold)
        baseline = lambda: torchvision.ops.batched_nms(boxes, scores, idxs, threshold)

        def check():
            kept = ours()
            expected = torchvision.ops.batched_nms(boxes.double(), scores.double(), idxs, threshold)
            assert torch.equal(kept.sort().values, expected.sort().values)  # torchvision does not order equal scores
            assert (scores[kept].diff() <= 0).all()

        return Comparison(ours, baseline, check)

    return make


CASES = [
    Case("nms", "10 boxes", single(10, calls=200)),
    Case("nms", "2,000 boxes", single(2000)),
    Case("nms", "12,000 boxes", single(12_000), rounds=3),
    Case("nms", "50,000 boxes", single(50_000), rounds=3),
    Case("batched_nms", "RPN in training, 5 levels, 8,819 boxes", batched([2000] * 4 + [819], THRESHOLD)),
    Case("batched_nms", "80 classes, 12,000 boxes", batched([150] * 80, 0.5)),
    *(Case("nms", f"by boxes: {n}", single(n, 5), sweep=True) for n in (100, 500, 1000, 4000, 8000)),
]


def nms_cost(boxes, scores, idxs, *_):
    """Count launches, bytes beyond arguments and results, and the wait for the size, from csrc/cuda/nms_kernel.cuh.

    Bytes: each key with its index is read and written in four passes (eight of float64), each bucket in two; then the
    sorted boxes and flags, and the mask words of pairs in one group.
    """
    n, bands = len(boxes), -(-len(boxes) // BAND)
    key = scores.element_size() // 8 * 4 + 4
    sizes = [n] if idxs is None else idxs.unique(return_counts=True)[1].tolist()
    launches = 4 + 3 * bands - 1 + 2 * (idxs is not None)
    moved = n * (2 * key + 2 * key * (key + 8) + 2 * 16 + 2) + (idxs is not None) * n * (2 * 2 + 2 * 2 * 10 + 2 * 12)
    return launches, moved + sum(2 * size * min(size, BAND) // 16 for size in sizes), 1


def baseline_nms(boxes, *_):
    n = len(boxes)  # sort, gather, a mask of all pairs, a sweep over it, and the selection of the kept boxes
    return 7, n * (4 * 2 * 12 + 2 * 16) + 2 * n * n // 8, 1


COST = {  # see static.py
    "rpcnn::nms": nms_cost,
    "torchvision::nms": baseline_nms,
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_nms(benchmark, case, device):
    bench(benchmark, case, device)
