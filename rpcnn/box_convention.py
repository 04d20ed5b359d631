"""What the four numbers of a box mean: edges (ours), or first and last pixels (the released code's "+1" boxes).

Boxes are float32 [..., 4], x1 y1 x2 y2 in pixels, with width = x2 - x1, in both conventions. Areas, overlaps, anchors,
regression targets, suppression and mirror images are the same in both. Where corners are taken for points they differ:
when they are clipped, resized or handed to RoIAlign. Those three are the methods here.
"""

import torch
from torch import Tensor


class EdgeBoxes:
    """Corners are edges between pixels."""

    area_offset = 0
    """Of `ops.multilevel_roi_align`: what its boxes lack in width and height."""

    def clip(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Boxes [..., 4] cut to an image of (height, width) pixels."""
        height, width = image_size
        x1, y1, x2, y2 = boxes.unbind(dim=-1)
        corners = x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)
        return torch.stack(corners, dim=-1)

    def resize(self, boxes: Tensor, old_size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
        """Boxes [n, 4] of an image of (height, width) pixels after its resizing, each axis by its own ratio."""
        return boxes * _ratios(boxes, old_size, new_size)

    def to_roi(self, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] as RoIAlign takes them."""
        return boxes


class PixelBoxes:
    """Corners are the centers of the first and the last pixel, which is [x1, x2 - 1] of our numbers (released code)."""

    area_offset = 1

    def clip(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """As `EdgeBoxes.clip`, but the first and the last pixel of each box stay in the image: none is empty."""
        height, width = image_size
        x1, y1, x2, y2 = boxes.unbind(dim=-1)
        corners = x1.clamp(0, width - 1), y1.clamp(0, height - 1), x2.clamp(1, width), y2.clamp(1, height)
        return torch.stack(corners, dim=-1)

    def resize(self, boxes: Tensor, old_size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
        """As `EdgeBoxes.resize`, but the first and the last pixel are multiplied by the ratio, not the edges."""
        ends = boxes.new_tensor([0, 0, 1, 1])
        return (boxes - ends) * _ratios(boxes, old_size, new_size) + ends

    def to_roi(self, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] as RoIAlign takes them: they end at their last pixel."""
        return last_pixels(boxes)


EDGES, PIXELS = EdgeBoxes(), PixelBoxes()
BoxConvention = EdgeBoxes | PixelBoxes


def _ratios(boxes: Tensor, old_size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    ratio_y, ratio_x = (new / old for new, old in zip(new_size, old_size, strict=True))
    return boxes.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])


def last_pixels(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] that end at their last pixel: x2 - 1, y2 - 1."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - 1], dim=-1)


def mirror_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes [n, 4] as they lie in the mirror image of an image of `width` pixels."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=-1)
