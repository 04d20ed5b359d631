"""The CUDA kernels of nms, executed by the emulator."""

import pytest
import torch
from helpers import emulator

from rpcnn.ops import nms_reference


def clustered(count, spread=300.0):
    center = torch.rand(max(count // 8, 1), 2) * spread
    center = center[torch.randint(0, len(center), (count,))] + torch.randn(count, 2) * 6
    size = 20 + 40 * torch.rand(count, 2)
    return torch.cat([center - size / 2, center + size / 2], 1), torch.rand(count)


def emulated(boxes, scores, threshold, max_keep=None, idxs=None):
    """The steps of csrc/cuda/nms.cu: sort keys, stable sort, bands."""
    n = len(boxes)
    keys = torch.empty(n, dtype=torch.int64)
    emulator.call("nms_keys", scores.dtype, scores, scores.stride(0), n, keys)
    order = keys.argsort(stable=True)
    limit = n if max_keep is None else min(n, max_keep)
    indices, counts = torch.full((limit,), -1), torch.empty(2, dtype=torch.int64)
    level = torch.tensor([threshold], dtype=torch.float64)
    strides = boxes.stride()
    emulator.call("nms", boxes.dtype, boxes, *strides, idxs, order, n, level, limit, indices, counts)
    assert (indices[counts[1] :] == -1).all()
    return indices[: counts[1]]


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 129, 500])
def test_equals_reference(count, order):
    emulator.schedule(order)
    boxes, scores = clustered(count)
    assert torch.equal(emulated(boxes, scores, 0.5), nms_reference(boxes, scores, 0.5))


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_groups_and_strides(threshold, dtype):
    emulator.schedule(emulator.ORDERS[2])
    boxes, scores = clustered(400)
    boxes, idxs = boxes.to(dtype).t().contiguous().t(), torch.randint(-3, 3, (400,)) * 2**40
    scores = torch.stack([scores, scores], 1)[:, 0]
    want = nms_reference(boxes, scores, threshold, None, idxs)
    assert torch.equal(emulated(boxes, scores, threshold, None, idxs), want)


def test_several_bands():
    emulator.schedule(emulator.ORDERS[2])
    boxes, scores = clustered(4700, spread=1500.0)
    want = nms_reference(boxes, scores, 0.5)
    assert torch.equal(emulated(boxes, scores, 0.5), want) and len(want) > 1000
    for max_keep in (5, len(want) - 3):  # full in the first band, full in the last
        assert torch.equal(emulated(boxes, scores, 0.5, max_keep), want[:max_keep])


@pytest.mark.parametrize("max_keep", [1, 7, 64, 65, 10_000])
def test_max_keep_is_a_prefix(max_keep):
    boxes, scores = clustered(500)
    assert torch.equal(emulated(boxes, scores, 0.6, max_keep), nms_reference(boxes, scores, 0.6)[:max_keep])


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("tenths", [1, 3, 5, 7])
def test_an_iou_equal_to_the_threshold_is_kept(tenths, dtype):
    low = torch.randint(0, 12, (300, 2))
    boxes = torch.cat([low, low + torch.randint(1, 12, (300, 2))], 1).to(dtype)
    scores = torch.rand(300)
    assert torch.equal(emulated(boxes, scores, tenths / 10), nms_reference(boxes, scores, tenths / 10))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 1 / 3])
def test_ious_near_the_threshold_match_the_reference(threshold):
    corner, size = torch.rand(200, 2) * 800, torch.rand(200, 2) * 300
    whole = torch.cat([corner, corner + size], 1)
    part = whole.clone()
    part[:, 3] = corner[:, 1] + threshold * size[:, 1]
    for k in range(1, 4):  # 0 to 3 units in the last place above
        more = torch.arange(200) % 4 >= k
        part[more, 3] = torch.nextafter(part[more, 3], torch.tensor(1e9))
    boxes, pairs = torch.cat([whole, part]), torch.arange(400) % 200
    scores = torch.linspace(1, 0, 400)
    want = nms_reference(boxes, scores, threshold, None, pairs)
    assert torch.equal(emulated(boxes, scores, threshold, None, pairs), want) and 200 < len(want) < 400


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e-37), (torch.float32, 3e36), (torch.float64, 1e250)])
def test_no_area_overflows_or_vanishes(dtype, scale):
    boxes = torch.tensor([[-10.0, -10, 10, 10], [-10, -10, 10, 9], [-10, -10, 10, -5]], dtype=dtype) * scale
    assert emulated(boxes, torch.tensor([3.0, 2, 1]), 0.5).tolist() == [0, 2]


def test_boxes_that_are_not_finite_or_have_no_area():
    nan, inf = float("nan"), float("inf")
    bad = [[0, 0, nan, 10], [-inf, 0, 10, 10], [0, 0, 10, inf], [5, 5, 5, 5], [9, 9, 1, 1]]
    boxes = torch.tensor([*bad, [0, 0, 10, 10], [0, 0, 10, 9.5]])
    assert emulated(boxes, torch.arange(7.0).flip(0), 0.0).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
def test_scores_order(dtype):
    scores = torch.tensor([0.0, float("nan"), -0.0, 2e-7, -float("inf"), 2.5, -1.0, float("nan"), float("inf")])
    boxes = torch.arange(9.0)[:, None] * 100 + torch.tensor([0.0, 0, 10, 10])
    assert emulated(boxes, scores.to(dtype), 0.5).tolist() == [8, 5, 3, 0, 2, 6, 4, 1, 7]
