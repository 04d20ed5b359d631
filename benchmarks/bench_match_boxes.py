"""match_boxes against the matrix of all IoUs in PyTorch: the anchors of an image, and its proposals.

    pytest benchmarks/bench_match_boxes.py --benchmark-only

Bytes: boxes and ground truth read, matches written.
"""

import pytest
import torch
from measure import DEVICES, Case, Comparison, bench, size_of

from rpcnn.ops import match_boxes
from rpcnn.ops.match_boxes import BACKGROUND, IGNORED, box_iou

PIECES, BLOCK = 128, 256  # kMatchPieces in csrc/cuda/match_boxes_kernel.cuh, kBlock


def composition(boxes, gt_boxes, positive, negative, promote_best=False):
    """Match with PyTorch's ops, as detectors do."""
    iou = box_iou(gt_boxes, boxes)
    overlap, person = iou.max(dim=0)
    matched = torch.where(overlap < negative, BACKGROUND, torch.where(overlap < positive, IGNORED, person))
    if promote_best:
        best = iou.amax(dim=1, keepdim=True)
        matched = torch.where(((iou == best) & (best > 0)).any(dim=0), person, matched)
    return matched


def inputs(count, people, device):
    """Make boxes in 800×1216 pixels, as many as the anchors of five levels or as the proposals, and people."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.rand(n, 2, generator=generator)
    corners, sizes = (draw(n) * torch.tensor([1100.0, 700]) for n in (count, people)), (32, 150)
    made = [torch.cat([c, c + s + s * draw(len(c))], 1) for c, s in zip(corners, sizes, strict=True)]
    return [boxes.to(device) for boxes in made]


def matching(count, people, *rule):
    def make(device):
        boxes, gt_boxes = inputs(count, people, device)
        ours, baseline = (lambda f=f: f(boxes, gt_boxes, *rule) for f in (match_boxes, composition))
        check = lambda: torch.testing.assert_close(ours(), baseline(), rtol=0, atol=0)
        return Comparison(ours, baseline, check, size_of(boxes, gt_boxes) + 8 * count)

    return make


CASES = [
    Case("match_boxes", "243,000 anchors, 6 people", matching(243_000, 6, 0.7, 0.3, True)),
    Case("match_boxes", "243,000 anchors, 30 people", matching(243_000, 30, 0.7, 0.3, True)),
    Case("match_boxes", "2,006 proposals, 6 people", matching(2006, 6, 0.5, 0.5)),
]


def cost(boxes, gt_boxes, positive, negative, promote_best, *_):
    """Count two launches, boxes read twice, and the maxima of the pieces written and read by every block."""
    if not promote_best:
        return 1, 0, 0
    pieces, blocks = min(PIECES, -(-len(boxes) // BLOCK)), -(-len(boxes) // BLOCK)
    return 2, size_of(boxes) + (1 + blocks) * pieces * len(gt_boxes) * boxes.element_size(), 0


COST = {"rpcnn::match_boxes": cost}  # see static.py


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_match_boxes(benchmark, case, device):
    bench(benchmark, case, device)
