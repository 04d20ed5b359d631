"""Boxes of the detector (Sec. 3.2): anchors, suppression and seeded sampling.

Boxes are float32 [n, 4], x1 y1 x2 y2 in pixels with exclusive ends: width = x2 - x1. Letters: G ground-truth boxes of
an image, A anchors, R RoIs.

The number of boxes that a step keeps depends on the data. On the CPU, results have exactly that size. On an
accelerator, reading that number would synchronize with the device, so results have a fixed size and are padded: with
empty boxes (all coordinates 0), with the index `IGNORED` or with the score -inf; see `draw_samples` and `suppress`.
"""

import math

import torch
from torch import Tensor

from rpcnn import ops
from rpcnn.ops.decode_proposals import decode_boxes
from rpcnn.ops.match_boxes import BACKGROUND, IGNORED, box_area, box_iou

# Those that are not defined here.
__all__ = ["BACKGROUND", "IGNORED", "box_area", "box_iou", "decode_boxes"]


def cell_anchors(size: float, stride: int, ratios=(0.5, 1.0, 2.0)) -> Tensor:
    """Anchors [len(ratios), 4] of the top left grid cell of the image, centered on the cell.

    As in Faster R-CNN, sides are rounded at the size of the stride and enlarged afterwards. At stride 4 and size 32,
    ratios height / width of 0.5, 1, 2 give 48x24, 32x32 and 24x48 pixels (width x height).

    Args:
        size: side of a square anchor in pixels.
        stride: of the feature map, in pixels.
        ratios: height / width.
    """
    anchors = []
    for ratio in ratios:
        width = round(math.sqrt(stride * stride / ratio))
        height = round(width * ratio)
        half_width, half_height = 0.5 * width * size / stride, 0.5 * height * size / stride
        center = 0.5 * stride
        anchors.append([center - half_width, center - half_height, center + half_width, center + half_height])
    return torch.tensor(anchors, dtype=torch.float32)


def has_exact_sizes(boxes: Tensor) -> bool:
    """Whether results that depend on values have exactly their size (on the CPU), or a fixed one with padding."""
    return boxes.device.type == "cpu"


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """NMS within each group: int64 indices of the boxes [n, 4] that are kept, best first over all groups.

    On an accelerator n indices, padded with -1.
    """
    if has_exact_sizes(boxes):
        return ops.batched_nms(boxes, scores, idxs=groups, iou_threshold=iou_threshold)
    return ops.nms_padded(boxes, scores, idxs=groups, iou_threshold=iou_threshold, max_keep=len(boxes))[0]


def first_of_each_image(images: Tensor, num_images: int, count: int) -> tuple[Tensor, Tensor]:
    """Select the first `count` places of each image in a list of image indices [n].

    Returns:
        Places int64 [num_images, min(count, n)] in ascending order, and a mask of validity; false for padding.
    """
    places = torch.arange(len(images), device=images.device)
    own = images == torch.arange(num_images, device=images.device)[:, None]
    chosen = torch.where(own, places, len(images)).topk(min(count, len(images)), dim=1, largest=False)
    return chosen.indices, chosen.values < len(images)


def draw_samples(
    matched: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None, negatives: bool = True
) -> tuple[Tensor, Tensor]:
    """Draw at most `count` boxes at random, positives first: their indices and their entries of `matched`.

    At most `positive_fraction` of `count` are positive. Negatives fill the rest, as far as there are enough of them. On
    an accelerator both results have min(count, n) entries, padded with index 0 and `IGNORED`.

    Args:
        matched: int64 [n], as from `ops.match_boxes`.
        negatives: draw negatives, too.
    """
    keys = torch.rand(len(matched), generator=generator, device=matched.device)
    samples, people = ops.draw_samples(matched, keys, count, int(count * positive_fraction), negatives)
    if has_exact_sizes(matched):
        drawn = people != IGNORED
        return samples[drawn], people[drawn]
    return samples, people
