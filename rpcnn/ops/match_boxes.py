"""Matches boxes, anchors or proposals, with the ground-truth boxes of an image (Sec. 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._arguments import as_flag, as_float, as_size, check, check_tensor
from ._examples import Example, people
from ._library import compiled, register

BACKGROUND = -1  # of a box whose IoU with every ground-truth box is too low
IGNORED = -2  # of a box that is neither positive nor negative


def match_boxes(
    boxes: Tensor,
    gt_boxes: Tensor,
    positive: float,
    negative: float,
    promote_best: bool = False,
    image_size: Sequence[int] | None = None,
) -> Tensor:
    """Match each box with the ground-truth box that it overlaps most, without the matrix of all IoUs in memory.

    A box whose largest IoU is >= `positive` is matched with the ground-truth box of that IoU, the first of equals; one
    below `negative` is background; one in between is ignored. Coordinates and IoUs are rounded as PyTorch's ops do, so
    that all devices find the same matches.

    Args:
        boxes: float32 or float64 [n, 4], (x1, y1, x2, y2) in pixels with exclusive ends. One without area or with a
            corner that is not finite is ignored.
        gt_boxes: [G, 4] of the same dtype. One without area or with a corner that is not finite matches nothing.
        positive, negative: IoU thresholds in 0..1, negative <= positive.
        promote_best: also match, for every ground-truth box, the boxes with the highest IoU with it (ties included),
            whatever this IoU is, if it is not 0. Such a box is matched with the one that it overlaps most.
        image_size: (height, width) in pixels; boxes that extend beyond the image are ignored. None ignores none.

    Returns:
        int64 [n]: index of the matched ground-truth box, -1 for background, -2 for ignored. Not differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
    """
    op = "match_boxes"
    for name, tensor in (("boxes", boxes), ("gt_boxes", gt_boxes)):
        check_tensor(op, name, tensor)
        check(
            tensor.dim() == 2 and tensor.shape[1] == 4,
            lambda: f"{op}: {name} must have shape [n, 4], got {list(tensor.shape)}",
        )
    check(
        boxes.dtype in (torch.float32, torch.float64),
        lambda: f"{op}: boxes must be float32 or float64, got {boxes.dtype}",
    )
    check(
        gt_boxes.dtype == boxes.dtype and gt_boxes.device == boxes.device,
        lambda: f"{op}: gt_boxes must be {boxes.dtype} on {boxes.device}, got {gt_boxes.dtype} on {gt_boxes.device}",
    )
    positive = as_float(op, "positive", positive, finite=False)
    negative = as_float(op, "negative", negative, finite=False)
    check(0 <= positive <= 1, lambda: f"{op}: positive must lie in 0..1, got {positive}")
    check(0 <= negative <= positive, lambda: f"{op}: negative must lie in 0..positive = {positive}, got {negative}")
    promote_best = as_flag(op, "promote_best", promote_best)
    if image_size is not None:
        image_size = as_size(op, "image_size", image_size)
    if not compiled(boxes):
        return match_boxes_reference(boxes, gt_boxes, positive, negative, promote_best, image_size)
    height, width = image_size or (-1, -1)
    return torch.ops.rpcnn.match_boxes(
        boxes.detach(), gt_boxes.detach(), positive, negative, promote_best, height, width
    )


@torch.no_grad()
def match_boxes_reference(
    boxes: Tensor,
    gt_boxes: Tensor,
    positive: float,
    negative: float,
    promote_best: bool = False,
    image_size: Sequence[int] | None = None,
) -> Tensor:
    """The definition of :func:`match_boxes` in plain PyTorch."""
    usable = has_area(boxes)
    matched = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    if len(gt_boxes) and len(boxes):
        empty = boxes.new_zeros(4)
        truth = torch.where(has_area(gt_boxes)[:, None], gt_boxes, empty)
        iou = box_iou(truth, torch.where(usable[:, None], boxes, empty))
        overlap, person = iou.max(dim=0)
        matched = torch.where(overlap < negative, BACKGROUND, torch.where(overlap < positive, IGNORED, person))
        if promote_best:
            best = iou.amax(dim=1, keepdim=True)
            matched = torch.where(((iou == best) & (best > 0)).any(dim=0), person, matched)
    if image_size is not None:
        height, width = image_size
        x1, y1, x2, y2 = boxes.unbind(dim=1)
        usable = usable & (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)
    return torch.where(usable, matched, IGNORED)


def has_area(boxes: Tensor) -> Tensor:
    """Whether boxes [n, 4] have finite corners and an area: bool [n]."""
    return boxes.isfinite().all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def box_area(boxes: Tensor) -> Tensor:
    """Areas [n] in square pixels; 0 where x2 < x1 or y2 < y1."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def box_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Pairwise intersection over union [len(a), len(b)] in [0, 1]; 0 where both boxes are empty."""
    top_left = torch.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    bottom_right = torch.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    union = box_area(boxes_a)[:, None] + box_area(boxes_b)[None] - intersection
    return torch.where(union > 0, intersection / union, 0)


def _fake(boxes, gt_boxes, positive, negative, promote_best, height, width):
    return boxes.new_empty(boxes.shape[0], dtype=torch.int64)


def _example(small: bool) -> Example:
    """Make anchors over an image, and six people in it."""
    stride, (height, width) = (16, (200, 304)) if small else (4, (800, 1216))
    y, x = torch.meshgrid(torch.arange(0.0, height, stride), torch.arange(0.0, width, stride), indexing="ij")
    center = torch.stack([x, y], 2)[:, :, None] + stride / 2
    half = torch.tensor([[24.0, 12], [16, 16], [12, 24]]) * (4 if small else 1)
    arguments = {
        "boxes": torch.cat([center - half, center + half], 3).reshape(-1, 4),
        "gt_boxes": people(small)[:6],
        "positive": 0.7,
        "negative": 0.3,
        "promote_best": True,
        "image_size": (height, width),
    }
    return Example(match_boxes, match_boxes_reference, arguments, differentiable=False, exact=True)


register("match_boxes", fake=_fake, example=_example)
