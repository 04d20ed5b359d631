"""The CUDA kernel of decode_proposals, executed by the emulator."""

import pytest
import torch
from helpers import emulator

from rpcnn.ops import decode_proposals_reference


def case(anchors, keep, images, dtype=torch.float32):
    wide = emulator.accumulation(dtype)
    deltas = [torch.randn(images, n, 4, dtype=wide).to(dtype) for n in anchors]
    best = [torch.stack([torch.randperm(n)[:keep] for _ in range(images)]) for n in anchors]
    corner = 100 * torch.rand(sum(anchors), 2, dtype=wide)
    boxes = torch.cat([corner, corner + 10 + 60 * torch.rand(sum(anchors), 2, dtype=wide)], 1)
    return deltas, best, boxes, [(90 + 7 * (i % 9), 120 - i) for i in range(images)]


def emulated(deltas, best, anchors, sizes, min_size=0):
    counts, kept = [d.shape[1] for d in deltas], [b.shape[1] for b in best]
    boxes = torch.full((len(sizes), sum(kept), 4), torch.nan, dtype=anchors.dtype)
    groups = torch.full(boxes.shape[:2], -9)
    heights, widths = map(list, zip(*sizes, strict=True))
    levels = (len(deltas), deltas, best, counts, kept)
    images = (len(sizes), heights, widths, min_size)
    emulator.call("decode_proposals", deltas[0].dtype, *levels, anchors, *images, boxes, groups)
    return boxes, groups


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("min_size", [0, 1])
@pytest.mark.parametrize(
    ("anchors", "keep", "images"), [((1,), 1, 1), ((40, 12, 3), 8, 2), ((5, 0, 4), 3, 70), ((7,) * 8, 2, 3)]
)
def test_equals_reference(anchors, keep, images, min_size, dtype, order):
    emulator.schedule(order)
    arguments = *case(anchors, keep, images, dtype), min_size
    (boxes, groups), (expected, expected_groups) = emulated(*arguments), decode_proposals_reference(*arguments)
    assert torch.equal(groups, expected_groups)
    torch.testing.assert_close(boxes, expected, rtol=1e-6, atol=1e-9 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("index", [-1, 12])
def test_an_anchor_that_is_not_there_gives_zeros(index):
    deltas, best, anchors, sizes = case((40, 12, 3), 8, 2)
    expected = decode_proposals_reference(deltas, best, anchors, sizes)[0]
    best[1][1, 2] = index
    expected[1, 8 + 2] = 0
    torch.testing.assert_close(emulated(deltas, best, anchors, sizes)[0], expected, rtol=1e-6, atol=1e-4)


def test_growth_is_limited_and_nan_stays():
    anchors = torch.tensor([[1000.0, 1000, 1016, 1016]])
    delta = torch.tensor([[[0.0, 0, 99, float("nan")]]])
    box = emulated([delta], [torch.zeros(1, 1, dtype=torch.int64)], anchors, [(5000, 5000)])[0][0, 0]
    torch.testing.assert_close(box[2] - box[0], torch.tensor(1000.0))
    assert box[1::2].isnan().all()
