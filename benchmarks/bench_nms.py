"""nms and batched_nms against torchvision: proposals of an RPN, and detections in many classes.

    pytest benchmarks/bench_nms.py --benchmark-only

Bytes are nothing here (20 per box): the work is one IoU test per kept box and later box of its group.
"""

import pytest
import torch
import torchvision
from measure import DEVICES, measure

from rpcnn.ops import batched_nms, nms

COUNTS = [1000, 2000, 6000, 12000]
THRESHOLD = 0.7  # the RPN's
# Boxes, groups, threshold: two images of five levels in training, 2000 a level at most; 80 classes at test.
BATCHED = {"RPN, 2 images of 5 levels": (17_638, 10, 0.7), "80 classes": (12_000, 80, 0.5)}


def proposals(count, device, seed=0):
    """Boxes in 800×1333 pixels that crowd around one place in eight, and their scores."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(max(count // 8, 1), 4, generator=generator) * torch.tensor([1333.0, 800, 200, 300])
    places = places[torch.randint(0, len(places), (count,), generator=generator)]
    centre = places[:, :2] + 8 * torch.randn(count, 2, generator=generator)
    size = (20 + places[:, 2:]) * (0.85 + 0.3 * torch.rand(count, 2, generator=generator))
    boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
    return boxes.to(device), torch.rand(count, generator=generator).to(device)


@pytest.mark.parametrize("implementation", ["rpcnn", "torchvision"])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("device", DEVICES)
def test_nms(benchmark, device, count, implementation):
    benchmark.group = f"nms {count} boxes, IoU {THRESHOLD}, {device}"
    boxes, scores = proposals(count, device)
    f = nms if implementation == "rpcnn" else torchvision.ops.nms
    kept = measure(benchmark, f, boxes, scores, THRESHOLD, device=device)
    benchmark.extra_info["kept"] = len(kept)
    if implementation == "rpcnn":  # torchvision rounds the threshold and the IoU in float32
        assert torch.equal(kept, torchvision.ops.nms(boxes.double(), scores.double(), THRESHOLD))


@pytest.mark.parametrize("implementation", ["rpcnn", "torchvision"])
@pytest.mark.parametrize("case", BATCHED)
@pytest.mark.parametrize("device", DEVICES)
def test_batched_nms(benchmark, device, case, implementation):
    count, groups, threshold = BATCHED[case]
    benchmark.group = f"batched_nms {case}, {count} boxes, IoU {threshold}, {device}"
    boxes, scores = proposals(count, device)
    idxs = torch.arange(count, device=device) % groups
    f = batched_nms if implementation == "rpcnn" else torchvision.ops.batched_nms
    kept = measure(benchmark, f, boxes, scores, idxs, threshold, device=device)
    benchmark.extra_info["kept"] = len(kept)
    if implementation == "rpcnn":
        want = torchvision.ops.batched_nms(boxes.double(), scores.double(), idxs, threshold)
        assert torch.equal(kept.sort().values, want.sort().values)  # its ties are in no order
        assert (scores[kept].diff() <= 0).all()
