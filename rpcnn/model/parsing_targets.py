"""What the parsing branch is trained on: the people's own label maps inside RoIs."""

import torch
from torch import Tensor


def crop_parsing(person_maps: Tensor, people: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The people's own label maps inside boxes, uint8 [R, size, size], nearest pixel to each point.

    person_maps [n, H, W] one map per person; people [R] indices into it; boxes [R, 4] pixels. Point (i, j) lies at
    y1 + (i + 0.5) h / size, x1 + (j + 0.5) w / size; points outside the image take the nearest pixel of its border.
    Reads only the R size^2 pixels wanted, on the device where the maps are; the result is on the boxes' device.
    """
    corners = boxes.to(person_maps.device)
    steps = (torch.arange(size, device=person_maps.device, dtype=corners.dtype) + 0.5) / size
    points = corners[:, :2, None] + (corners[:, 2:] - corners[:, :2])[:, :, None] * steps  # [R, 2 (x, y), size]
    return pixels_at(person_maps, people, points).to(boxes.device)


def pixels_at(person_maps: Tensor, people: Tensor, points: Tensor) -> Tensor:
    """The pixels [R, n, n] of the people's maps [n, H, W] at a grid each: points [R, 2 (x, y), n] in pixels."""
    columns = points[:, 0].floor().long().clamp(0, person_maps.shape[2] - 1)
    rows = points[:, 1].floor().long().clamp(0, person_maps.shape[1] - 1)
    return person_maps[people.to(person_maps.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
