"""Boxes of the detector (Sec. 3.2): overlap, box coder, anchors, matching and seeded sampling.

Boxes are float32 [n, 4], x1 y1 x2 y2 in pixels with exclusive ends: width = x2 - x1. Letters: G people of an image,
A anchors, R RoIs.

How many boxes a step keeps depends on the data. On the CPU they are returned and no more: no work for what is thrown
away. On an accelerator, where asking for the number would wait for the device, the results have fixed sizes, and what
fills them up is marked: an empty box at 0, or `IGNORED` (`slots`).
"""

import math

import torch
from torch import Tensor

BACKGROUND = -1  # a box that overlaps nobody enough
IGNORED = -2  # a box that is neither a positive nor a negative sample

# A box never grows by more than 1000/16 in one step: exp of anything larger is a diverging regressor, not a person.
MAX_LOG_SCALE = math.log(1000 / 16)


def box_area(boxes: Tensor) -> Tensor:
    """Areas [n] in square pixels; 0 for boxes turned inside out."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def box_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Pairwise intersection over union [len(a), len(b)] in [0, 1]; 0 where both boxes are empty."""
    top_left = torch.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    bottom_right = torch.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    union = box_area(boxes_a)[:, None] + box_area(boxes_b)[None] - intersection
    return torch.where(union > 0, intersection / union, 0)


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def encode_boxes(boxes: Tensor, references: Tensor, weights=(1.0, 1.0)) -> Tensor:
    """Regression targets [n, 4] that carry each reference box to its box: (dx, dy) and (dw, dh), times a weight each.

    dx, dy are shifts of the center in units of the reference's size, dw, dh logarithms of the size ratio.
    """
    center, size = _center_and_size(boxes)
    reference_center, reference_size = _center_and_size(references)
    shift = (center - reference_center) / reference_size
    scale = torch.log(size / reference_size)
    return torch.cat([shift * weights[0], scale * weights[1]], dim=-1)


def regression_targets(people: Tensor, matched: Tensor, references: Tensor, weights=(1.0, 1.0)) -> Tensor:
    """`encode_boxes` of the people [G, 4] whom the references [n, 4] are matched with; 0 where that is nobody."""
    if len(people) == 0:
        return torch.zeros_like(references)
    wanted = encode_boxes(people[matched.clamp(min=0)], references, weights)
    return torch.where((matched >= 0)[:, None], wanted, 0)


def decode_boxes(deltas: Tensor, references: Tensor, weights=(1.0, 1.0)) -> Tensor:
    """Boxes [..., 4] reached from the references by the deltas; the inverse of `encode_boxes`."""
    shift, log_scale = deltas[..., :2] / weights[0], deltas[..., 2:] / weights[1]
    reference_center, reference_size = _center_and_size(references)
    center = reference_center + shift * reference_size
    half_size = 0.5 * reference_size * torch.exp(log_scale.clamp(max=MAX_LOG_SCALE))
    return torch.cat([center - half_size, center + half_size], dim=-1)


def cell_anchors(size: float, stride: int, ratios=(0.5, 1.0, 2.0)) -> Tensor:
    """Anchors [len(ratios), 4] of the grid cell whose top left pixel is the image's, centered on the cell.

    The sizes are those of the R-CNN line: round on the stride's own scale first, then enlarge. At stride 4 and size
    32, ratios height / width of 0.5, 1, 2 give 48x24, 32x32 and 24x48 pixels.
    """
    anchors = []
    for ratio in ratios:
        width = round(math.sqrt(stride * stride / ratio))
        height = round(width * ratio)
        half_width, half_height = 0.5 * width * size / stride, 0.5 * height * size / stride
        center = 0.5 * stride
        anchors.append([center - half_width, center - half_height, center + half_width, center + half_height])
    return torch.tensor(anchors, dtype=torch.float32)


def grid_anchors(cell: Tensor, height: int, width: int, stride: int) -> Tensor:
    """The cell's anchors at every cell of a feature map, [height * width * len(cell), 4]: rows, columns, ratios."""
    x = torch.arange(width, device=cell.device, dtype=cell.dtype) * stride
    y = torch.arange(height, device=cell.device, dtype=cell.dtype) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1)
    return (shifts[:, :, None] + cell).reshape(-1, 4)


def match_boxes(iou: Tensor, positive: float, negative: float, promote_best: bool = False) -> Tensor:
    """The person each box stands for: int64 [n] of indices, `BACKGROUND` or `IGNORED`.

    iou [G, n] overlaps of people and boxes. A box with its largest overlap >= `positive` is that person's, one
    < `negative` is background, one between is ignored. `promote_best` also takes every box that overlaps some person
    more than any other box does (ties included), so that no person goes without; it still stands for the person that
    it overlaps most itself.
    """
    if iou.shape[0] == 0:
        return torch.full((iou.shape[1],), BACKGROUND, dtype=torch.int64, device=iou.device)
    overlap, person = iou.max(dim=0)
    matched = torch.where(overlap < negative, BACKGROUND, torch.where(overlap < positive, IGNORED, person))
    if promote_best and iou.shape[1] > 0:
        best = iou.amax(dim=1, keepdim=True)
        # A person whom no box overlaps at all has "best" 0 with every box: that must promote none.
        promoted = ((iou == best) & (best > 0)).any(dim=0)
        matched = torch.where(promoted, person, matched)
    return matched


def slots(keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices of the `count` smallest keys [n], ascending, and which of them are finite and so stand for something.

    Both have min(count, n) entries on an accelerator, where nothing waits for the device; on the CPU only the finite.
    """
    values, indices = keys.topk(min(count, len(keys)), largest=False)
    valid = values < torch.inf
    return (indices, valid) if keys.device.type != "cpu" else (indices[valid], valid[valid])


def draw(candidates: Tensor, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """At most `count` true entries of a mask [n], drawn without replacement: `slots` of indices."""
    keys = torch.rand(len(candidates), generator=generator, device=candidates.device)
    return slots(torch.where(candidates, keys, torch.inf), count)


def draw_samples(
    matched: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """At most `count` boxes, at most `positive_fraction` of them positive: `slots` of indices, positives first.

    matched [n] as from `match_boxes`. Negatives fill up what positives leave, as far as there are any.
    """
    keys = torch.rand(len(matched), generator=generator, device=matched.device)
    positives, valid = slots(torch.where(matched >= 0, keys, torch.inf), int(count * positive_fraction))
    chosen = torch.zeros_like(matched, dtype=torch.bool).scatter(0, positives, valid)
    return slots(torch.where(chosen, keys, torch.where(matched == BACKGROUND, 1 + keys, torch.inf)), count)
