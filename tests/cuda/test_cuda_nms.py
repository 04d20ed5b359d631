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


def emulated(boxes, scores, threshold, max_keep=None, idxs=None, slots=0, band=8192):
    """The steps of csrc/cuda/nms.cu: sort by scores, then by buckets of groups, both stable; launch.

    Band: boxes whose mask is in memory at one time, a multiple of 256; small ones test the seams with few boxes.
    """
    n = len(boxes)
    keys = torch.empty(n, dtype=torch.int64 if scores.dtype == torch.float64 else torch.int32)
    emulator.call("nms_keys", scores.dtype, scores, scores.stride(0), n, keys)
    best, ranks, buckets = keys.argsort(stable=True), None, None
    if idxs is not None:
        buckets = torch.empty(n, dtype=torch.int16)
        emulator.call("nms_buckets", idxs, idxs.stride(0), best, n, buckets)
        buckets, ranks = buckets.sort(stable=True)
    limit = n if max_keep is None else min(n, max_keep)
    indices, number = torch.full((max(limit, slots),), -7), torch.empty((), dtype=torch.int64)
    level = torch.tensor([threshold], dtype=torch.float64)
    step = 0 if idxs is None else idxs.stride(0)
    shape = (*boxes.stride(), idxs, step, best, ranks, buckets, n, level, band, limit, slots)
    emulator.call("nms", boxes.dtype, boxes, *shape, indices, number)
    assert (indices[number:slots] == -1).all() and (indices[max(number, slots) :] == -7).all()
    return indices[:number]


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


@pytest.mark.parametrize("order", emulator.ORDERS[1:3], ids=lambda order: order[0])
def test_several_bands(order):
    emulator.schedule(order)
    boxes, scores = clustered(1400)
    want = nms_reference(boxes, scores, 0.5)
    for max_keep in (5, 200, len(want) - 3):  # full in the first band, the second, the last
        assert torch.equal(emulated(boxes, scores, 0.5, max_keep, band=512), want[:max_keep])


def groups_of(sizes):
    """Groups of the given sizes, shuffled."""
    idxs = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return idxs[torch.randperm(len(idxs))]


@pytest.mark.parametrize("order", emulator.ORDERS[1:3], ids=lambda order: order[0])
@pytest.mark.parametrize(
    "sizes",
    [
        [900],
        [1] * 300,
        [3] * 150,
        [64] * 8,
        [128, 64, 256, 192],  # each ends with a tile, the second and the last with a band
        [20, 700, 1, 1, 130, 400],  # through two bands; from the middle of a tile into the next
        [255, 2, 255, 600],
        [1, 511, 1],
    ],
    ids=lambda sizes: "-".join(map(str, sizes))[:24],
)
def test_groups_of_any_size(sizes, order):
    emulator.schedule(order)
    idxs = groups_of(sizes)
    boxes, scores = clustered(len(idxs), spread=60.0)
    want = nms_reference(boxes, scores, 0.5, None, idxs)
    for max_keep in (None, 40):
        assert torch.equal(emulated(boxes, scores, 0.5, max_keep, idxs, band=256), want[:max_keep])


@pytest.mark.parametrize("band", [256, 8192])
def test_groups_of_one_bucket_do_not_mix(band):
    emulator.schedule(emulator.ORDERS[2])
    idxs = torch.randint(0, 4, (600,))
    idxs = idxs * 2**16 ^ idxs  # their 16-bit parts cancel
    idxs[::7] = 2**48 + 2**32
    boxes, scores = clustered(600, spread=60.0)
    want = nms_reference(boxes, scores, 0.5, None, idxs)
    assert torch.equal(emulated(boxes, scores, 0.5, None, idxs, band=band), want)


def test_a_group_is_full_by_its_own_boxes_alone():
    left = torch.arange(140.0) * 20
    boxes = torch.stack([left, left, left + 10, left + 10], 1)  # none overlaps another
    idxs = torch.tensor([0] * 40 + [1] * 100)  # the first tile holds both groups; the second has the best scores
    assert emulated(boxes, torch.arange(140.0), 0.5, 60, idxs).tolist() == list(range(139, 79, -1))


@pytest.mark.parametrize(("count", "max_keep"), [(1, 1), (70, 300), (500, 20)])
def test_slots_without_a_box_hold_minus_one(count, max_keep):
    boxes, scores = clustered(count)
    want = nms_reference(boxes, scores, 0.5, max_keep)
    assert torch.equal(emulated(boxes, scores, 0.5, max_keep, slots=max_keep), want)


def test_more_ranks_than_one_step_collects():
    emulator.schedule(emulator.ORDERS[2])
    boxes, scores = clustered(4500, spread=3000.0)
    idxs = torch.randint(0, 100, (4500,))
    want = nms_reference(boxes, scores, 0.5, None, idxs)
    assert len(want) > 4200
    assert torch.equal(emulated(boxes, scores, 0.5, 4150, idxs), want[:4150])


def chain(count):
    """Boxes side by side, each of which overlaps the next by more than half."""
    left = torch.arange(float(count)) * 3
    return torch.stack([left, torch.zeros(count), left + 10, torch.full((count,), 10.0)], 1)


@pytest.mark.parametrize("band", [256, 8192])
def test_chains_settle_from_best_to_worst(band):
    count = 600
    scores = torch.linspace(1, 0, count)
    got = emulated(chain(count), scores, 0.5, band=band)
    assert got.tolist() == list(range(0, count, 2))


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
