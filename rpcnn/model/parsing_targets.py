"""Training targets of the parsing branch: each person's label map, cropped to the RoI."""

import torch
from torch import Tensor


def crop_parsing(person_maps: Tensor, people: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop label maps to boxes by nearest-neighbor sampling: uint8 [R, size, size] on the device of the boxes.

    Point (i, j) lies at y1 + (i + 0.5) h / size, x1 + (j + 0.5) w / size. Points outside the image take the nearest
    border pixel. Only the R size² sampled pixels are read, on the device of the maps.

    Args:
        person_maps: uint8 [n, H, W], one label map per person.
        people: int64 [R], indices into person_maps.
        boxes: [R, 4] in pixels.
        size: side of the result in pixels.
    """
    corners = boxes.to(person_maps.device)
    steps = (torch.arange(size, device=person_maps.device, dtype=corners.dtype) + 0.5) / size
    points = corners[:, :2, None] + (corners[:, 2:] - corners[:, :2])[:, :, None] * steps  # [R, 2 (x, y), size]
    return pixels_at(person_maps, people, points).to(boxes.device)


def pixels_at(person_maps: Tensor, people: Tensor, points: Tensor) -> Tensor:
    """Sample a grid of pixels from each person's map.

    Args:
        person_maps: [P, H, W].
        people: int64 [R], indices into person_maps.
        points: [R, 2, n], the x and the y coordinates of each grid in pixels.

    Returns:
        [R, n, n] of the dtype of the maps.
    """
    columns = points[:, 0].floor().long().clamp(0, person_maps.shape[2] - 1)
    rows = points[:, 1].floor().long().clamp(0, person_maps.shape[1] - 1)
    return person_maps[people.to(person_maps.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
