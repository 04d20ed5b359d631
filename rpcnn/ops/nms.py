"""Greedy non-maximum suppression, plain and batched, as the RPN and the box branch (Sec. 3.5) use it."""

import torch
from torch import Tensor

from ._arguments import LARGEST_SIZE, as_float, as_int, check, check_floats, check_tensor
from ._examples import Example, people
from ._library import compiled, register

_INTEGERS = tuple(getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_keep: int | None = None) -> Tensor:
    """Keep the boxes that no better kept box overlaps by more than the threshold.

    As ``torchvision.ops.nms``, with these guarantees for every dtype and device:

    - A box whose IoU equals the threshold is kept. Corners are compared in float64, and an IoU within a relative 1e-12
      above the threshold counts as equal.
    - Equal scores keep input order. NaN scores come last, in input order.
    - A box with a non-finite corner neither suppresses nor is suppressed. A box without area overlaps nothing.

    Args:
        boxes: float32, float64, float16 or bfloat16 [R, 4], (x1, y1, x2, y2).
        scores: [R], float32, float64, float16 or bfloat16.
        iou_threshold: in 0..1.
        max_keep: maximum number of boxes to keep; None keeps all.

    Returns:
        int64 [≤ R] indices of the kept boxes, best score first. Not differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
    """
    return _nms("nms", boxes, scores, None, iou_threshold, max_keep)


def batched_nms(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, max_keep: int | None = None
) -> Tensor:
    """Run :func:`nms` within each group of boxes of equal ``idxs``, such as classes, levels or images, in one call.

    Groups are compared by their index; boxes are not offset to separate them.

    Args:
        boxes, scores, iou_threshold: see :func:`nms`.
        idxs: any integer dtype [R], the group of each box. Boxes of different groups never suppress each other.
        max_keep: maximum number of boxes to keep over all groups together, best scores first; None keeps all.

    Returns:
        int64 [≤ R] indices of the kept boxes, best score first over all groups. Not differentiable.

    Raises:
        ValueError: as :func:`nms`.
    """
    check_tensor("batched_nms", "idxs", idxs)
    return _nms("batched_nms", boxes, scores, idxs, iou_threshold, max_keep)


def nms_padded(
    boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float, max_keep: int
) -> tuple[Tensor, Tensor]:
    """Run :func:`batched_nms` with results of fixed size, so that the host does not wait for the GPU.

    Args:
        boxes, scores, iou_threshold: see :func:`nms`.
        idxs: see :func:`batched_nms`; None puts all boxes into one group.
        max_keep: maximum number of boxes to keep over all groups together.

    Returns:
        Indices int64 [max_keep] of the kept boxes, best score first, padded with -1; and their count, int64 [].

    Raises:
        ValueError: as :func:`nms`.
    """
    check(max_keep is not None, lambda: "nms_padded: max_keep must be an int >= 0, got None")
    checked = _checked("nms_padded", boxes, scores, idxs, iou_threshold, max_keep)
    idxs, threshold, max_keep = checked  # type: ignore[assignment]  # None has been refused
    check(max_keep <= LARGEST_SIZE, lambda: f"nms_padded: max_keep must be at most {LARGEST_SIZE}, got {max_keep}")
    if not compiled(boxes):
        return nms_padded_reference(boxes, scores, idxs, threshold, max_keep)
    return torch.ops.rpcnn.nms_padded(boxes.detach(), scores.detach(), idxs, threshold, max_keep)


def _nms(op: str, boxes: Tensor, scores: Tensor, idxs: Tensor | None, threshold: float, max_keep: int | None) -> Tensor:
    idxs, threshold, max_keep = _checked(op, boxes, scores, idxs, threshold, max_keep)
    if not compiled(boxes):
        return nms_reference(boxes, scores, threshold, max_keep, idxs)
    limit = -1 if max_keep is None else max_keep
    return torch.ops.rpcnn.nms(boxes.detach(), scores.detach(), idxs, threshold, limit)


def _checked(
    op: str, boxes: Tensor, scores: Tensor, idxs: Tensor | None, threshold: float, max_keep: int | None
) -> tuple[Tensor | None, float, int | None]:
    """Check all arguments. Returns idxs as int64, the threshold as float and max_keep as int."""
    if idxs is not None:
        check_tensor(op, "idxs", idxs)
    check_floats(op, "boxes", boxes)
    check_floats(op, "scores", scores)
    check(
        boxes.dim() == 2 and boxes.shape[1] == 4, lambda: f"{op}: boxes must have shape [R, 4], got {list(boxes.shape)}"
    )
    for name, tensor in (("scores", scores), ("idxs", idxs)):
        if tensor is not None:
            check(
                tensor.shape == boxes.shape[:1] and tensor.device == boxes.device,
                lambda: (
                    f"{op}: {name} must be [{boxes.shape[0]}] on {boxes.device}, "
                    f"got {list(tensor.shape)} on {tensor.device}"
                ),
            )
    threshold = as_float(op, "iou_threshold", threshold, finite=False)
    check(0 <= threshold <= 1, lambda: f"{op}: iou_threshold must lie in 0..1, got {threshold}")
    if max_keep is not None:
        max_keep = as_int(op, "max_keep", max_keep, "None or an int >= 0")
        check(max_keep >= 0, lambda: f"{op}: max_keep must be None or an int >= 0, got {max_keep}")
    if idxs is not None:
        dtype = idxs.dtype
        check(dtype in _INTEGERS, lambda: f"{op}: idxs must be integers, got {dtype}")
        idxs = idxs.long()
    return idxs, threshold, max_keep


@torch.no_grad()
def nms_reference(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_keep: int | None = None, idxs: Tensor | None = None
) -> Tensor:
    """The definition of :func:`nms` and :func:`batched_nms` in plain PyTorch, in O(R) memory.

    Works in blocks of 256 boxes, best first: suppresses within the block, then all later boxes in one comparison.
    """
    order = (-scores.double()).argsort(stable=True)  # ascending, where NaN comes last
    corners, alive = boxes.double()[order], torch.ones_like(order, dtype=torch.bool)
    groups = None if idxs is None else idxs[order]
    kept, count = [order[:0]], 0
    for start in range(0, len(order), 256):
        rows = start + alive[start : start + 256].nonzero()[:, 0]
        over = overlaps(corners[rows, None], corners[None, start:], iou_threshold)  # [rows, later boxes]
        if groups is not None:
            over &= groups[rows, None] == groups[None, start:]
        # Whether a box is kept depends on better boxes only, so each iteration settles at least one more row. A few
        # iterations usually settle all.
        among = over[:, rows - start].triu(1)
        keep = torch.ones_like(rows, dtype=torch.bool)
        while not torch.equal(settled := ~among[keep].any(0), keep):
            keep = settled
        alive[start:] &= ~over[keep].any(0)
        kept.append(rows[keep])
        count += len(kept[-1])
        if max_keep is not None and count >= max_keep:
            break
    return order[torch.cat(kept)[:max_keep]]


def batched_nms_reference(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, max_keep: int | None = None
) -> Tensor:
    """The definition of :func:`batched_nms` in plain PyTorch."""
    return nms_reference(boxes, scores, iou_threshold, max_keep, idxs)


def nms_padded_reference(
    boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float, max_keep: int
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`nms_padded` in plain PyTorch."""
    kept = nms_reference(boxes, scores, iou_threshold, max_keep, idxs)
    return torch.nn.functional.pad(kept, (0, max_keep - len(kept)), value=-1), torch.tensor(len(kept)).to(kept)


def overlaps(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """Whether boxes are finite and have IoU > threshold · (1 + 1e-12); a box without area overlaps nothing.

    A decimal threshold such as 0.7 is not exact in binary. The 1e-12 keeps rounding from making an IoU of exactly 0.7
    exceed it. Widths and heights are divided by the larger box's, so that no area overflows or underflows.

    Args:
        a, b: float64 [..., 4], which broadcast.
    """
    width, height = (torch.minimum(a[..., k + 2], b[..., k + 2]) - torch.maximum(a[..., k], b[..., k]) for k in (0, 1))
    (a_width, a_height), (b_width, b_height) = ((x[..., 2] - x[..., 0], x[..., 3] - x[..., 1]) for x in (a, b))
    wide, tall = torch.maximum(a_width, b_width), torch.maximum(a_height, b_height)
    inter = (width / wide) * (height / tall)
    union = (a_width / wide) * (a_height / tall) + (b_width / wide) * (b_height / tall) - inter
    finite = a.isfinite().all(-1) & b.isfinite().all(-1)
    return finite & (width > 0) & (height > 0) & (inter > threshold * (1 + 1e-12) * union)


def _fake(boxes, scores, idxs, iou_threshold, max_keep):
    if max_keep == 0:  # TorchInductor fails at a reduction over a size that is unknown but at most 0
        return boxes.new_empty(0, dtype=torch.int64)
    kept = torch.library.get_ctx().new_dynamic_size(max=max_keep if max_keep > 0 else None)
    return boxes.new_empty(kept, dtype=torch.int64)


def _fake_padded(boxes, scores, idxs, iou_threshold, max_keep):
    return boxes.new_empty(max_keep, dtype=torch.int64), boxes.new_empty((), dtype=torch.int64)


def _crowd(small: bool) -> dict[str, Tensor]:
    """Make four overlapping boxes for each person, and random scores."""
    boxes, generator = people(small).repeat(4, 1), torch.Generator().manual_seed(0)
    moved = 0.2 * (boxes[:, 2:] - boxes[:, :2]) * torch.rand(len(boxes), 2, generator=generator)
    return {"boxes": boxes + moved.repeat(1, 2), "scores": torch.rand(len(boxes), generator=generator)}


def _example(small: bool) -> Example:
    crowd = _crowd(small)
    arguments = crowd | {"iou_threshold": 0.5, "max_keep": len(crowd["boxes"])}
    return Example(nms, nms_reference, arguments, differentiable=False, exact=True, fixed_size=False)


def _example_padded(small: bool) -> Example:
    crowd = _crowd(small)
    arguments = crowd | {"idxs": torch.arange(len(crowd["boxes"])) % 5, "iou_threshold": 0.5, "max_keep": 300}
    return Example(nms_padded, nms_padded_reference, arguments, differentiable=False, exact=True)


register("nms", fake=_fake, example=_example)
register("nms_padded", fake=_fake_padded, example=_example_padded)
