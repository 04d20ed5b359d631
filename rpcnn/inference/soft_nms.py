"""Soft-NMS (Bodla et al., ICCV 2017) and box voting (Gidaris and Komodakis, ICCV 2015) for test-time augmentation.

Plain PyTorch is fast enough: they run once per image, after many passes of the network. Selecting the best 100 of
3,600 candidates takes 22 ms on one CPU core.
"""

import torch
from torch import Tensor

from rpcnn.model.boxes import box_iou, has_exact_sizes


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.5,
    method: str = "linear",
    sigma: float = 0.5,
    min_score: float = 1e-4,
    max_keep: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Repeatedly select the best box and lower the scores of the boxes that overlap it.

    Ties are selected in input order.

    Args:
        boxes: float [n, 4], x1 y1 x2 y2.
        scores: float [n] in [0, 1].
        iou_threshold: in [0, 1], used by method "linear".
        method: what scores are multiplied by. "linear": 1 - IoU if the IoU exceeds `iou_threshold`, else 1.
            "gaussian": exp(-IoU² / sigma).
        sigma: positive, used by method "gaussian".
        min_score: positive; boxes with lower scores are dropped.
        max_keep: stop after this many boxes; None keeps all. It does not change which boxes come first.

    Returns:
        int64 indices [m] of the selected boxes and their lowered scores [m], in descending order.

    Raises:
        ValueError: a wrong shape, an unknown method, an argument out of range, or boxes or scores that are not finite.
    """
    _check("soft_nms", boxes, scores)
    if method not in ("linear", "gaussian"):
        raise ValueError(f"soft_nms: method must be 'linear' or 'gaussian', got {method!r}")
    if not (0 <= iou_threshold <= 1 and sigma > 0 and min_score > 0):
        raise ValueError(
            "soft_nms: iou_threshold must lie in 0..1, sigma and min_score must be positive, "
            f"got {iou_threshold}, {sigma} and {min_score}"
        )
    on_host = has_exact_sizes(boxes)
    remaining = scores.clone()
    taken, lowered = [], []
    for _ in range(len(boxes) if max_keep is None else min(max_keep, len(boxes))):
        score, best = remaining.max(dim=0, keepdim=True)  # the first of equal ones
        if on_host and score < min_score:  # on an accelerator, reading every score would wait for the device
            break
        taken.append(best)
        lowered.append(score)
        iou = box_iou(boxes[best], boxes)[0]
        if method == "linear":
            remaining = remaining * torch.where(iou > iou_threshold, 1 - iou, 1)
        else:
            remaining = remaining * torch.exp(-iou.square() / sigma)
        remaining.index_fill_(0, best, 0)  # below min_score, which is positive
    if not taken:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device), scores[:0]
    best, lowered = torch.cat(taken), torch.cat(lowered)
    if on_host:
        return best, lowered
    count = int((lowered >= min_score).sum())  # they descend
    return best[:count], lowered[:count]


def box_voting(boxes: Tensor, candidates: Tensor, scores: Tensor, iou_threshold: float = 0.9) -> Tensor:
    """Replace each box by the score-weighted mean of the candidates with IoU >= `iou_threshold`.

    Args:
        boxes: float [m, 4].
        candidates: float [n, 4], all boxes before suppression; they include the boxes themselves.
        scores: float [n] in [0, 1], of the candidates before suppression.
        iou_threshold: in [0, 1].

    Returns:
        float [m, 4]; a box without overlapping candidates is not changed.

    Raises:
        ValueError: a wrong shape, an argument out of range, or candidates or scores that are not finite.
    """
    _check("box_voting", candidates, scores)
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"box_voting: iou_threshold must lie in 0..1, got {iou_threshold}")
    weights = torch.where(box_iou(boxes, candidates) >= iou_threshold, scores, 0).double()
    total = weights.sum(dim=1, keepdim=True)
    # In float64: TF32 would round coordinates to 10 bits, one pixel in 1,000.
    mean = (weights @ candidates.double() / total).to(boxes.dtype)
    return torch.where(total > 0, mean, boxes)


def _check(op: str, boxes: Tensor, scores: Tensor) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"{op}: boxes must be [n, 4] with scores [n], got {list(boxes.shape)} and {list(scores.shape)}"
        )
    for name, tensor in (("boxes", boxes), ("scores", scores)):
        if not tensor.isfinite().all():
            raise ValueError(f"{op}: {name} must be finite, got {int((~tensor.isfinite()).sum())} numbers that are not")
