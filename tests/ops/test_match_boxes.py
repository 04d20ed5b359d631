"""match_boxes equals the matrix of all IoUs in plain PyTorch, bit for bit."""

import pytest
import torch

from rpcnn.ops import match_boxes, match_boxes_reference
from rpcnn.ops.match_boxes import BACKGROUND, IGNORED

both = pytest.mark.parametrize("match", [match_boxes, match_boxes_reference], ids=["op", "reference"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def random_boxes(n, size=100.0, dtype=torch.float32):
    corner = torch.rand(n, 2, dtype=dtype) * size
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, dtype=dtype) * size / 2], 1)


def grid(height, width, stride=8, side=24):
    """Anchors, many of which overlap a box equally."""
    y, x = torch.meshgrid(torch.arange(0.0, height, stride), torch.arange(0.0, width, stride), indexing="ij")
    center = torch.stack([x, y], 2).reshape(-1, 2) + stride / 2
    return torch.cat([center - side / 2, center + side / 2], 1)


@dtypes
@pytest.mark.parametrize("promote_best", [False, True])
@pytest.mark.parametrize("people", [0, 1, 7, 33, 130])
@pytest.mark.parametrize("n", [0, 1, 15, 1023, 1025, 3000])
def test_equals_reference(n, people, promote_best, dtype):
    boxes, gt_boxes = random_boxes(n, dtype=dtype), random_boxes(people, dtype=dtype)
    arguments = boxes, gt_boxes, 0.5, 0.3, promote_best, (90, 110)
    got = match_boxes(*arguments)
    assert got.dtype == torch.int64 and torch.equal(got, match_boxes_reference(*arguments))


@pytest.mark.parametrize("promote_best", [False, True])
def test_equal_overlaps_are_equal_in_every_bit(promote_best):
    anchors = grid(160, 240)
    gt_boxes = torch.tensor([[33.0, 41, 70, 90], [33, 41, 70, 90], [100.3, 20.7, 131.9, 77.1], [4, 4, 28, 28]])
    arguments = anchors, gt_boxes, 0.7, 0.1, promote_best, None
    got = match_boxes(*arguments)
    assert torch.equal(got, match_boxes_reference(*arguments)) and 1 not in got


@both
def test_thresholds(match):
    gt_boxes = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 7], [0, 0, 10, 6.9], [0, 0, 10, 3], [0, 0, 10, 2.9], [20, 20, 30, 30]])
    assert match(boxes, gt_boxes, 0.7, 0.3).tolist() == [0, IGNORED, IGNORED, BACKGROUND, BACKGROUND]
    assert match(boxes, gt_boxes, 0.5, 0.5).tolist() == [0, 0, BACKGROUND, BACKGROUND, BACKGROUND]


@both
def test_each_ground_truth_box_keeps_its_best_boxes_with_ties(match):
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [10, 0, 20, 5], [10, 5, 20, 10], [30, 30, 40, 40]])
    # Box 0 overlaps both most and stays with the first. Boxes 1 and 2 tie as the best of the other alone.
    assert match(boxes, gt_boxes, 0.95, 0.3, True).tolist() == [0, BACKGROUND, BACKGROUND, BACKGROUND]
    assert match(boxes[1:], gt_boxes, 0.95, 0.3, True).tolist() == [1, 1, BACKGROUND]


@both
def test_a_ground_truth_box_that_nothing_overlaps_promotes_nothing(match):
    boxes = torch.tensor([[50.0, 50, 60, 60], [70, 70, 80, 80]])
    assert match(boxes, torch.tensor([[0.0, 0, 10, 10]]), 0.7, 0.3, True).tolist() == [BACKGROUND] * 2


@both
def test_equal_overlaps_take_the_first_ground_truth_box(match):
    gt_boxes = torch.tensor([[0.0, 0, 10, 5], [0, 5, 10, 10], [0, 0, 10, 5]])
    assert match(torch.tensor([[0.0, 0, 10, 10]]), gt_boxes, 0.5, 0.5).tolist() == [0]


@both
@pytest.mark.parametrize("positive", [0.0, 0.5])
def test_without_ground_truth_all_is_background(match, positive):
    assert match(random_boxes(3), torch.zeros(0, 4), positive, 0.0, True).tolist() == [BACKGROUND] * 3


@both
def test_boxes_beyond_the_image_are_ignored_but_count_for_the_best(match):
    gt_boxes = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[-1.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 20, 30], [0, 0, 21, 30], [0, 0, 20, 30.5]])
    expected = [IGNORED, IGNORED, BACKGROUND, IGNORED, IGNORED]
    assert match(boxes, gt_boxes, 0.85, 0.3, True, (30, 20)).tolist() == expected


@both
@dtypes
def test_boxes_without_area_or_not_finite(match, dtype):
    nan, inf = float("nan"), float("inf")
    bad = [[5, 5, 5, 9], [9, 0, 5, 9], [0, 0, 0, 0], [nan, 0, 5, 5], [0, 0, nan, 5], [0, 0, inf, 9], [-inf, 0, 5, inf]]
    good = [[0.0, 0, 10, 10], [50, 50, 60, 60]]
    for promote_best in (False, True):
        got = match(
            torch.tensor(bad + good, dtype=dtype), torch.tensor(bad + good[:1], dtype=dtype), 0.5, 0.3, promote_best
        )
        assert got.tolist() == [IGNORED] * 7 + [7, BACKGROUND]


@both
def test_areas_that_overflow_or_vanish(match):
    boxes = torch.tensor([[0.0, 0, 1e30, 1e30], [0, 0, 1e-30, 1e-30], [0, 0, 10, 10]])
    assert match(boxes, boxes, 0.5, 0.3, True).tolist() == [BACKGROUND, BACKGROUND, 2]


@pytest.mark.parametrize("layout", ["transposed", "sliced", "shifted", "stepped"])
def test_any_strides(layout):
    views = {
        "transposed": lambda t: t.t().contiguous().t(),
        "sliced": lambda t: torch.cat([t, t], 1)[:, :4],
        "shifted": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(-1, 4),
        "stepped": lambda t: t.repeat_interleave(2, 0)[::2],
    }
    boxes, gt_boxes = random_boxes(100), random_boxes(5)
    got = match_boxes(views[layout](boxes), views[layout](gt_boxes), 0.5, 0.3)
    assert torch.equal(got, match_boxes_reference(boxes, gt_boxes, 0.5, 0.3))


def test_gradients_do_not_pass():
    boxes, gt_boxes = random_boxes(4).requires_grad_(), random_boxes(2).requires_grad_()
    assert not match_boxes(boxes, gt_boxes, 0.5, 0.3).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.zeros(3, 5)}, r"boxes must have shape \[n, 4\], got \[3, 5\]"),
        ({"boxes": None}, "boxes must be a tensor, got None"),
        ({"boxes": torch.zeros(3, 4, dtype=torch.float16)}, "boxes must be float32 or float64, got torch.float16"),
        ({"gt_boxes": torch.zeros(4)}, r"gt_boxes must have shape \[n, 4\], got \[4\]"),
        (
            {"gt_boxes": torch.zeros(2, 4, dtype=torch.float64)},
            "gt_boxes must be torch.float32 on cpu, got torch.float64",
        ),
        ({"gt_boxes": torch.zeros(2, 4, device="meta")}, "gt_boxes must be torch.float32 on cpu, got .* on meta"),
        ({"positive": 1.5}, r"positive must lie in 0..1, got 1.5"),
        ({"positive": float("nan")}, r"positive must lie in 0..1, got nan"),
        ({"negative": 0.6}, "negative must lie in 0..positive = 0.5, got 0.6"),
        ({"negative": "low"}, "negative must be a number, got 'low'"),
        ({"image_size": 7}, "image_size must be positive .height, width., got 7"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"boxes": random_boxes(3), "gt_boxes": random_boxes(2), "positive": 0.5, "negative": 0.3}
    with pytest.raises(ValueError, match=f"^match_boxes: {message}"):
        match_boxes(**arguments | change)
