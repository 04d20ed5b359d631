"""The CUDA kernels of match_boxes, executed by the emulator."""

import pytest
import torch
from helpers import emulator

from rpcnn.ops import match_boxes_reference
from rpcnn.ops.match_boxes import BACKGROUND, IGNORED


def random_boxes(n, size=100.0, dtype=torch.float32):
    corner = torch.rand(n, 2, dtype=dtype) * size
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, dtype=dtype) * size / 2], 1)


def emulated(boxes, gt_boxes, positive, negative, promote_best=False, image_size=None):
    matched = torch.full((len(boxes),), -9)
    thresholds = torch.tensor([positive, negative], dtype=torch.float64)
    height, width = image_size or (-1, -1)
    sizes = (len(boxes), gt_boxes, len(gt_boxes), thresholds, promote_best, height, width)
    emulator.call("match_boxes", boxes.dtype, boxes, *sizes, matched)
    return matched


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("people", [1, 9, 70])
def test_orders(people, order):
    emulator.schedule(order)
    arguments = random_boxes(700), random_boxes(people), 0.5, 0.3, True, (90, 110)
    assert torch.equal(emulated(*arguments), match_boxes_reference(*arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("promote_best", [False, True])
@pytest.mark.parametrize(("n", "people"), [(0, 3), (1, 0), (1, 1), (255, 8), (257, 33)])
def test_sizes(n, people, promote_best, dtype):
    emulator.schedule(emulator.ORDERS[2])
    arguments = random_boxes(n, dtype=dtype), random_boxes(people, dtype=dtype), 0.5, 0.3, promote_best
    assert torch.equal(emulated(*arguments), match_boxes_reference(*arguments))


def test_more_boxes_than_the_first_launch_has_threads():
    emulator.schedule(emulator.ORDERS[2])
    boxes, gt_boxes = random_boxes(40_000), torch.tensor([[10.0, 10, 40, 40], [200, 200, 220, 220]])
    boxes[39_990] = torch.tensor([215.0, 215, 230, 230])  # the only box that overlaps the second
    got = emulated(boxes, gt_boxes, 0.9, 0.3, True)
    assert torch.equal(got, match_boxes_reference(boxes, gt_boxes, 0.9, 0.3, True)) and got[39_990] == 1


def test_overlaps_at_the_thresholds():
    boxes = torch.tensor([[0.0, 0, 10, 7], [0, 0, 10, 6.9], [0, 0, 10, 3], [0, 0, 10, 2.9]])
    got = emulated(boxes, torch.tensor([[0.0, 0, 10, 10]]), 0.7, 0.3)
    assert got.tolist() == [0, IGNORED, IGNORED, BACKGROUND]


def test_without_ground_truth_all_is_background():
    assert emulated(random_boxes(3), torch.zeros(0, 4), 0.5, 0.0).tolist() == [BACKGROUND] * 3


def test_ties_of_the_best_and_of_the_ground_truth():
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 0, 10, 10]])
    boxes = torch.tensor([[-2.0, 0, 8, 10], [2, 0, 12, 10], [5, 0, 15, 10], [10, 0, 20, 5], [10, 5, 20, 10]])
    arguments = boxes.repeat(60, 1), gt_boxes, 0.9, 0.1, True
    got = emulated(*arguments)
    assert torch.equal(got, match_boxes_reference(*arguments))
    assert got[:5].tolist() == [0, 0, IGNORED, 1, 1]


def test_boxes_that_are_not_finite_or_have_no_area():
    nan, inf = float("nan"), float("inf")
    bad = [[5, 5, 5, 9], [9, 0, 5, 9], [0, 0, 0, 0], [nan, 0, 5, 5], [0, 0, nan, 5], [0, 0, inf, 9], [-inf, 0, 5, inf]]
    boxes = torch.tensor([*bad, [0.0, 0, 10, 10], [50, 50, 60, 60]])
    assert emulated(boxes, boxes[:8], 0.5, 0.3, True).tolist() == [IGNORED] * 7 + [7, BACKGROUND]
