"""Soft-NMS and box voting against literal loops, and at their edges."""

import math

import pytest
import torch

from rpcnn.inference.soft_nms import box_voting, soft_nms
from rpcnn.model.boxes import box_iou


def crowd(seed: int, people: int = 6, each: int = 40):
    """Candidates [people * each, 4] around a few people, and scores."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(people, 1, 2, generator=generator) * 300
    size = 20 + 80 * torch.rand(people, 1, 2, generator=generator)
    center = center + 0.1 * size * torch.randn(people, each, 2, generator=generator)
    size = size * (1 + 0.1 * torch.randn(people, each, 2, generator=generator)).clamp(min=0.5)
    boxes = torch.cat([center - size / 2, center + size / 2], dim=2).flatten(0, 1)
    return boxes, 0.05 + 0.95 * torch.rand(len(boxes), generator=generator)


def plain_iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def plain_soft_nms(boxes, scores, threshold, method, sigma, min_score):
    """Bodla et al., Fig. 3, line by line: B and S shrink, D and its scores grow."""
    left = [[score, index, box] for index, (box, score) in enumerate(zip(boxes, scores, strict=True))]
    taken = []
    while left:
        best = max(left, key=lambda entry: (entry[0], -entry[1]))
        left.remove(best)
        if best[0] < min_score:
            break
        taken.append((best[1], best[0]))
        for entry in left:
            iou = plain_iou(best[2], entry[2])
            if method == "gaussian":
                entry[0] *= math.exp(-iou * iou / sigma)
            elif iou > threshold:
                entry[0] *= 1 - iou
        left = [entry for entry in left if entry[0] >= min_score]
    return taken


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("method", "sigma"), [("linear", 0.5), ("gaussian", 0.5), ("gaussian", 0.2)])
def test_soft_nms_is_the_literal_loop(seed, method, sigma):
    boxes, scores = (tensor.double() for tensor in crowd(seed))
    expected = plain_soft_nms(boxes.tolist(), scores.tolist(), 0.5, method, sigma, 1e-4)
    taken, lowered = soft_nms(boxes, scores, 0.5, method, sigma, 1e-4)
    assert taken.tolist() == [index for index, _ in expected]
    assert lowered.tolist() == pytest.approx([score for _, score in expected], rel=1e-9)
    assert len(taken) < len(boxes) and (lowered < scores[taken]).any()  # some were dropped, some lowered


def test_stopping_early_takes_the_same_best_boxes():
    boxes, scores = crowd(3)
    taken, lowered = soft_nms(boxes, scores)
    first, first_lowered = soft_nms(boxes, scores, max_keep=7)
    assert len(taken) > 7 and taken[:7].tolist() == first.tolist() and torch.equal(lowered[:7], first_lowered)
    assert (lowered.diff() <= 0).all()


def test_iou_equal_to_the_threshold_lowers_no_score():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6]])  # IoU with the first: 0.5 and 0.6
    taken, lowered = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    assert taken.tolist() == [0, 1, 2]
    # The third overlaps the second by 5/6, too.
    assert lowered.tolist() == pytest.approx([0.9, 0.8, 0.7 * 0.4 * (1 / 6)])


def test_linear_drops_and_gaussian_lowers_a_duplicate():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    scores = torch.tensor([0.9, 0.9, 0.9])
    assert soft_nms(boxes, scores)[0].tolist() == [0]
    taken, lowered = soft_nms(boxes, scores, method="gaussian", sigma=0.5)
    assert taken.tolist() == [0, 1, 2]
    assert lowered.tolist() == pytest.approx([0.9, 0.9 * math.exp(-2), 0.9 * math.exp(-4)])


def test_equal_scores_keep_their_order():
    boxes = torch.arange(50.0)[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])
    assert soft_nms(boxes, torch.full((50,), 0.5))[0].tolist() == list(range(50))


def test_no_box_one_box_and_boxes_below_the_minimum():
    taken, lowered = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert taken.shape == lowered.shape == (0,) and taken.dtype == torch.int64
    box = torch.tensor([[1.0, 2, 3, 4]])
    assert soft_nms(box, torch.tensor([0.3]))[1].tolist() == pytest.approx([0.3])
    assert len(soft_nms(box, torch.tensor([1e-4 - 1e-6]))[0]) == 0
    assert len(soft_nms(box, torch.tensor([0.3]), max_keep=0)[0]) == 0


def test_arguments_are_left_as_they_were():
    boxes, scores = crowd(4)
    before = scores.clone()
    soft_nms(boxes, scores)
    assert torch.equal(scores, before)


def test_invalid_soft_nms_options_raise():
    boxes, scores = crowd(0)
    broken = scores.clone()
    broken[3] = math.nan
    with pytest.raises(ValueError, match="soft_nms: scores must be finite, got 1 numbers"):
        soft_nms(boxes, broken)
    with pytest.raises(ValueError, match="soft_nms: boxes must be finite"):
        soft_nms(torch.where(boxes > 100, torch.inf, boxes), scores)
    with pytest.raises(ValueError, match=r"boxes must be \[n, 4\] with scores \[n\], got \[240, 4\] and \[239\]"):
        soft_nms(boxes, scores[1:])
    with pytest.raises(ValueError, match="method must be 'linear' or 'gaussian', got 'hard'"):
        soft_nms(boxes, scores, method="hard")
    with pytest.raises(ValueError, match="sigma and min_score must be positive"):
        soft_nms(boxes, scores, min_score=0)
    with pytest.raises(ValueError, match="box_voting: scores must be finite"):
        box_voting(boxes, boxes, broken)
    with pytest.raises(ValueError, match=r"box_voting: iou_threshold must lie in 0\.\.1, got 1\.5"):
        box_voting(boxes, boxes, scores, 1.5)


def test_box_voting_is_the_literal_mean():
    boxes, scores = crowd(5)
    kept = soft_nms(boxes, scores, max_keep=10)[0]
    voted = box_voting(boxes[kept], boxes, scores, 0.8)
    several = 0
    for box, result in zip(boxes[kept].tolist(), voted.tolist(), strict=True):
        voters = [(b, s) for b, s in zip(boxes.tolist(), scores.tolist(), strict=True) if plain_iou(box, b) >= 0.8]
        several += len(voters) > 1
        total = sum(score for _, score in voters)
        for k in range(4):
            assert result[k] == pytest.approx(sum(b[k] * s for b, s in voters) / total, abs=1e-3)
    assert several > 5


def test_box_voting_weighs_by_score_above_the_threshold():
    boxes = torch.tensor([[0.0, 0, 100, 100], [0, 0, 100, 90], [0, 0, 100, 89]])
    assert box_iou(boxes[:1], boxes)[0].tolist() == pytest.approx([1, 0.9, 0.89])
    voted = box_voting(boxes[:1], boxes, torch.tensor([0.6, 0.2, 0.9]), 0.9)
    assert voted[0].tolist() == pytest.approx([0, 0, 100, (0.6 * 100 + 0.2 * 90) / 0.8])


def test_a_box_without_voters_stays():
    box = torch.tensor([[0.0, 0, 10, 10]])
    assert torch.equal(box_voting(box, torch.zeros(0, 4), torch.zeros(0)), box)
    assert torch.equal(box_voting(box, box + 100, torch.ones(1)), box)
    assert torch.equal(box_voting(box, box, torch.zeros(1)), box)
    assert box_voting(torch.zeros(0, 4), box, torch.ones(1)).shape == (0, 4)
