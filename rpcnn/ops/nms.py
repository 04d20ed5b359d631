"""Greedy non-maximum suppression, plain and batched (Sec. 3.5: the box branch; and the RPN)."""

import torch
from torch import Tensor

from ._library import CPU_MISSING, check, compiled


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_keep: int | None = None) -> Tensor:
    """Keeps the best box, drops those that overlap it by more than the threshold, and so on.

    As ``torchvision.ops.nms``, with these promises: an IoU equal to the threshold is kept, in every dtype and on every
    device (the result is that of float64 arithmetic); equal scores keep input order; a box with a non-finite corner
    neither suppresses nor is suppressed; a box without area overlaps nothing; NaN scores come last.

    Args:
        boxes: [R, 4] (x1, y1, x2, y2), float32, float64, float16 or bfloat16.
        scores: [R], any float dtype.
        iou_threshold: in 0..1.
        max_keep: stop after this many; None keeps all.

    Returns:
        int64 [≤ R] indices of the kept boxes, best score first. Not differentiable.

    Raises:
        ValueError: a shape, dtype, device or number does not fit.
    """
    return _nms("nms", boxes, scores, None, iou_threshold, max_keep)


def batched_nms(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, max_keep: int | None = None
) -> Tensor:
    """:func:`nms` among the boxes of equal ``idxs`` (classes, levels, images) in one call; no coordinate is moved.

    Args:
        boxes, scores, iou_threshold: see :func:`nms`.
        idxs: [R] integers, any values; boxes of different groups never suppress each other.
        max_keep: the total over all groups, best scores first.

    Returns:
        int64 [≤ R] indices, best score first over all groups.
    """
    return _nms("batched_nms", boxes, scores, idxs, iou_threshold, max_keep)


def _nms(op: str, boxes: Tensor, scores: Tensor, idxs: Tensor | None, threshold: float, max_keep: int | None) -> Tensor:
    floats = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    check(boxes.dim() == 2 and boxes.shape[1] == 4, f"{op}: boxes must have shape [R, 4], got {list(boxes.shape)}")
    check(boxes.dtype in floats, f"{op}: boxes must be float32, float64, float16 or bfloat16, got {boxes.dtype}")
    check(scores.dtype in floats, f"{op}: scores must be float32, float64, float16 or bfloat16, got {scores.dtype}")
    for name, tensor in (("scores", scores), ("idxs", idxs)):
        if tensor is not None:
            check(
                tensor.shape == boxes.shape[:1] and tensor.device == boxes.device,
                f"{op}: {name} must be [{boxes.shape[0]}] on {boxes.device}, "
                f"got {list(tensor.shape)} on {tensor.device}",
            )
    if idxs is not None:
        integer = not idxs.is_floating_point() and not idxs.is_complex() and idxs.dtype != torch.bool
        check(integer, f"{op}: idxs must be integers, got {idxs.dtype}")
        idxs = idxs.long()
    check(0 <= threshold <= 1, f"{op}: iou_threshold must lie in 0..1, got {threshold}")
    check(max_keep is None or max_keep >= 0, f"{op}: max_keep must be None or >= 0, got {max_keep}")
    limit = -1 if max_keep is None else int(max_keep)
    if not compiled(boxes):
        return nms_reference(boxes, scores, threshold, max_keep, idxs)
    return torch.ops.rpcnn.nms(boxes.detach(), scores.detach(), idxs, float(threshold), limit)


@torch.no_grad()
def nms_reference(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_keep: int | None = None, idxs: Tensor | None = None
) -> Tensor:
    """The definition of :func:`nms` and :func:`batched_nms` in plain PyTorch; O(R) memory per kept box."""
    order = torch.where(scores.isnan(), -torch.inf, scores.double()).argsort(descending=True, stable=True)
    order = torch.cat([order[~scores[order].isnan()], order[scores[order].isnan()]])
    corners = boxes[order].double()
    groups = None if idxs is None else idxs[order]
    finite = corners.isfinite().all(1)
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    kept = []
    for i in range(len(boxes)):
        if max_keep is not None and len(kept) >= max_keep:
            break
        if not alive[i]:
            continue
        kept.append(i)
        if not finite[i]:
            continue
        over = finite & overlaps(corners[i], corners, iou_threshold)
        if groups is not None:
            over &= groups == groups[i]
        over[: i + 1] = False
        alive &= ~over
    return order[torch.tensor(kept, dtype=torch.int64, device=boxes.device)]


def batched_nms_reference(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, max_keep: int | None = None
) -> Tensor:
    """The definition of :func:`batched_nms` in plain PyTorch."""
    return nms_reference(boxes, scores, iou_threshold, max_keep, idxs)


def overlaps(box: Tensor, boxes: Tensor, threshold: float) -> Tensor:
    """Whether the IoU of float64 box [4] with each of boxes [R, 4] exceeds the threshold by more than rounding."""
    width = torch.minimum(box[2], boxes[:, 2]) - torch.maximum(box[0], boxes[:, 0])
    height = torch.minimum(box[3], boxes[:, 3]) - torch.maximum(box[1], boxes[:, 1])
    inter = width.clamp(min=0) * height.clamp(min=0)
    area = (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)
    own = (box[2] - box[0]).clamp(min=0) * (box[3] - box[1]).clamp(min=0)
    union = own + area - inter
    # The threshold is a decimal such as 0.7 that no binary number equals: 1e-12 of the union separates "equal" from
    # "more" for every box whose coordinates are of ordinary precision.
    return inter > threshold * union + 1e-12 * union


if not CPU_MISSING:

    @torch.library.register_fake("rpcnn::nms")
    def _(boxes, scores, idxs, iou_threshold, max_keep):
        kept = torch.library.get_ctx().new_dynamic_size()
        return boxes.new_empty(kept, dtype=torch.int64)
