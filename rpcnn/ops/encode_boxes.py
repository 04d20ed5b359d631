"""Encodes matched ground-truth boxes as regression targets (Sec. 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._arguments import as_float, as_list, check, check_tensor
from ._examples import Example, people
from ._library import compiled, register
from .match_boxes import BACKGROUND


def encode_boxes(
    gt_boxes: Tensor, references: Tensor, matched: Tensor, weights: Sequence[float] = (1.0, 1.0)
) -> Tensor:
    """Compute the regression targets from reference boxes, such as anchors, to their matched ground-truth boxes.

    Args:
        gt_boxes: float32 or float64 [G, 4], (x1, y1, x2, y2) in pixels.
        references: [n, 4] of the same dtype.
        matched: int64 [n], index of the ground-truth box of each reference, negative for none. One >= G is an error on
            the CPU and gives zeros on a GPU.
        weights: factors on (dx, dy) and on (dw, dh).

    Returns:
        (dx, dy, dw, dh) [n, 4]: shifts of the center in units of the reference's size, and logarithms of the size
        ratio; 0 for a reference without a match. Not differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
        RuntimeError: see `matched`.
    """
    op = "encode_boxes"
    for name, tensor in (("gt_boxes", gt_boxes), ("references", references), ("matched", matched)):
        check_tensor(op, name, tensor)
    for name, boxes in (("gt_boxes", gt_boxes), ("references", references)):
        check(
            boxes.dim() == 2 and boxes.shape[1] == 4,
            lambda: f"{op}: {name} must have shape [n, 4], got {list(boxes.shape)}",
        )
    check(
        references.dtype in (torch.float32, torch.float64),
        lambda: f"{op}: references must be float32 or float64, got {references.dtype}",
    )
    check(
        gt_boxes.dtype == references.dtype and gt_boxes.device == references.device,
        lambda: (
            f"{op}: gt_boxes must be {references.dtype} on {references.device}, "
            f"got {gt_boxes.dtype} on {gt_boxes.device}"
        ),
    )
    check(
        matched.shape == references.shape[:1] and matched.dtype == torch.int64 and matched.device == references.device,
        lambda: (
            f"{op}: matched must be int64 [{len(references)}] on {references.device}, "
            f"got {matched.dtype} {list(matched.shape)} on {matched.device}"
        ),
    )
    factors = as_list(op, "weights", weights, "two numbers")
    check(len(factors) == 2, lambda: f"{op}: weights must be two numbers, got {len(factors)}")
    factors = [as_float(op, "weights", factor) for factor in factors]
    if not compiled(references):
        return encode_boxes_reference(gt_boxes, references, matched, factors)
    return torch.ops.rpcnn.encode_boxes(gt_boxes.detach(), references.detach(), matched, *factors)


@torch.no_grad()
def encode_boxes_reference(
    gt_boxes: Tensor, references: Tensor, matched: Tensor, weights: Sequence[float] = (1.0, 1.0)
) -> Tensor:
    """The definition of :func:`encode_boxes` in plain PyTorch."""
    if len(gt_boxes) == 0 and bool((matched < 0).all()):
        return torch.zeros_like(references, memory_format=torch.contiguous_format)
    boxes = gt_boxes[matched.clamp(min=0)]
    size, reference_size = boxes[:, 2:] - boxes[:, :2], references[:, 2:] - references[:, :2]
    center, reference_center = boxes[:, :2] + 0.5 * size, references[:, :2] + 0.5 * reference_size
    shift, scale = (center - reference_center) / reference_size, torch.log(size / reference_size)
    targets = torch.cat([shift * weights[0], scale * weights[1]], dim=1)
    return torch.where((matched >= 0)[:, None], targets, 0)


def _fake(gt_boxes, references, matched, center_weight, size_weight):
    return references.new_empty(references.shape)


def _example(small: bool) -> Example:
    references = people(small)
    matched = torch.arange(len(references)) % 8 + BACKGROUND
    arguments = {"gt_boxes": references[:7] + 1, "references": references, "matched": matched, "weights": (10.0, 5.0)}
    return Example(encode_boxes, encode_boxes_reference, arguments, differentiable=False)


register("encode_boxes", fake=_fake, example=_example)
