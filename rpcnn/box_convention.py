"""Conventions of box coordinates: edges between pixels (ours), or first and last pixels ("+1" boxes, released code).

Boxes are float32 [..., 4], x1 y1 x2 y2 in pixels, with width = x2 - x1, in both conventions. Areas, IoU, anchors,
regression targets, NMS and mirroring do not depend on the convention. Clipping, resizing and RoIAlign do; these three
are the methods here.
"""

import torch
from torch import Tensor


class EdgeBoxes:
    """Convention in which coordinates are edges between pixels."""

    area_offset = 0
    """Argument of `ops.multilevel_roi_align`: added to width and height of a RoI when it is assigned to a level."""
    min_size = 0
    """Argument of `ops.decode_proposals`: least width and height in pixels of a clipped box."""

    def clip(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Clip boxes [..., 4] to an image of (height, width) pixels."""
        height, width = image_size
        x1, y1, x2, y2 = boxes.unbind(dim=-1)
        corners = x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)
        return torch.stack(corners, dim=-1)

    def resize(self, boxes: Tensor, old_size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
        """Scale boxes [n, 4] of an image that is resized; sizes are (height, width), each axis has its own ratio."""
        return _scaled(boxes, old_size, new_size)

    def to_roi(self, boxes: Tensor) -> Tensor:
        """Convert boxes [n, 4] to the coordinates that RoIAlign takes."""
        return boxes


class PixelBoxes:
    """Convention of the released code: a box extends from its first to its last pixel, x1 to x2 - 1."""

    area_offset = 1
    min_size = 1

    def clip(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """As `EdgeBoxes.clip`, but the first and the last pixel are clamped to the image, so that no box is empty."""
        height, width = image_size
        x1, y1, x2, y2 = boxes.unbind(dim=-1)
        corners = x1.clamp(0, width - 1), y1.clamp(0, height - 1), x2.clamp(1, width), y2.clamp(1, height)
        return torch.stack(corners, dim=-1)

    def resize(self, boxes: Tensor, old_size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
        """As `EdgeBoxes.resize`, but the coordinates of the first and the last pixel are scaled."""
        first, last = _scaled(last_pixels(boxes), old_size, new_size).split(2, dim=-1)
        return torch.cat([first, last + 1], dim=-1)

    def to_roi(self, boxes: Tensor) -> Tensor:
        """Convert boxes [n, 4] to the coordinates that RoIAlign takes: x2 and y2 are those of the last pixel."""
        return last_pixels(boxes)


EDGES, PIXELS = EdgeBoxes(), PixelBoxes()
BoxConvention = EdgeBoxes | PixelBoxes


def _scaled(boxes: Tensor, old_size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    ratio_y, ratio_x = (new / old for new, old in zip(new_size, old_size, strict=True))
    # Not one product with a tensor of four ratios: its upload would wait for the device.
    return torch.stack([boxes[..., 0::2] * ratio_x, boxes[..., 1::2] * ratio_y], dim=-1).flatten(-2)


def last_pixels(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] with the last pixel instead of the exclusive end: x2 - 1, y2 - 1."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - 1], dim=-1)


def mirror_boxes(boxes: Tensor, width: float) -> Tensor:
    """Mirror boxes [n, 4] horizontally in an image of `width` pixels."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=-1)
