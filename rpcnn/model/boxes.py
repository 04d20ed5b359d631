"""Boxes of the detector (Sec. 3.2): overlap, box coder, anchors, matching and seeded sampling.

Boxes are float32 [n, 4], x1 y1 x2 y2 in pixels with exclusive ends: width = x2 - x1. Letters: G people of an image,
A anchors, R RoIs.
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


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] cut to an image of (height, width) pixels."""
    height, width = image_size
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def encode_boxes(boxes: Tensor, references: Tensor, weights=(1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Regression targets [n, 4] that carry each reference box to its box: (dx, dy, dw, dh) times the weights.

    dx, dy are shifts of the centre in units of the reference's size, dw, dh logarithms of the size ratio.
    """
    centre, size = _centre_and_size(boxes)
    reference_centre, reference_size = _centre_and_size(references)
    shift = (centre - reference_centre) / reference_size
    scale = torch.log(size / reference_size)
    return torch.cat([shift, scale], dim=-1) * shift.new_tensor(weights)


def decode_boxes(deltas: Tensor, references: Tensor, weights=(1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Boxes [..., 4] reached from the references by the deltas; the inverse of `encode_boxes`."""
    deltas = deltas / deltas.new_tensor(weights)
    reference_centre, reference_size = _centre_and_size(references)
    centre = reference_centre + deltas[..., :2] * reference_size
    half_size = 0.5 * reference_size * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE))
    return torch.cat([centre - half_size, centre + half_size], dim=-1)


def cell_anchors(size: float, stride: int, ratios=(0.5, 1.0, 2.0)) -> Tensor:
    """Anchors [len(ratios), 4] of the grid cell whose top left pixel is the image's, centred on the cell.

    The sizes are those of the R-CNN line: round on the stride's own scale first, then enlarge. At stride 4 and size
    32, ratios height / width of 0.5, 1, 2 give 48x24, 32x32 and 24x48 pixels.
    """
    anchors = []
    for ratio in ratios:
        width = round(math.sqrt(stride * stride / ratio))
        height = round(width * ratio)
        half_width, half_height = 0.5 * width * size / stride, 0.5 * height * size / stride
        centre = 0.5 * stride
        anchors.append([centre - half_width, centre - half_height, centre + half_width, centre + half_height])
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


def draw(candidates: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Indices of at most `count` true entries of a mask [n], drawn without replacement."""
    indices = candidates.nonzero()[:, 0]
    order = torch.randperm(len(indices), generator=generator, device=indices.device)
    return indices[order[:count]]


def draw_samples(
    matched: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Indices (positives, negatives) of `count` boxes, at most `positive_fraction` of them positive.

    matched [n] as from `match_boxes`. Negatives fill up what positives leave, as far as there are any.
    """
    positives = draw(matched >= 0, int(count * positive_fraction), generator)
    negatives = draw(matched == BACKGROUND, count - len(positives), generator)
    return positives, negatives
