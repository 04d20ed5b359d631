"""Bilinear sampling of maps at the pixels of an image, as paste_parsing defines it."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

STRIP_NUMBERS = 1 << 23
"""The largest number of full-resolution values held at a time (32 MB of float32)."""


def pixels_inside(low: float, high: float, size: int) -> tuple[int, int]:
    """Return the range [first, last) of the pixels 0..size-1 whose centers lie in [low, high)."""
    return max(math.ceil(low - 0.5), 0), min(math.ceil(high - 0.5), size)


def strips(first: int, last: int, numbers_per_row: int) -> Iterator[tuple[int, int]]:
    """Split rows [first, last) into ranges of at most STRIP_NUMBERS values each, but at least one row."""
    step = max(STRIP_NUMBERS // numbers_per_row, 1)
    for start in range(first, last, step):
        yield start, min(start + step, last)


def map_coordinates(pixels: tuple[int, int], low: float, high: float, size: int, device: torch.device) -> Tensor:
    """Convert the centers of pixels [first, last) to coordinates, float64, on a map with `size` cells over [low, high).

    The cells' centers have the coordinates 0, 1, …, size - 1.
    """
    centers = torch.arange(*pixels, dtype=torch.float64, device=device) + 0.5
    return (centers - low) * (size / (high - low)) - 0.5


def sample_grid(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sample maps [K, h, w] bilinearly at a grid of coordinates, which are clamped to the map.

    Returns:
        [K, len(rows), len(columns)].
    """
    for axis, coordinates in ((1, rows), (2, columns)):
        last = maps.shape[axis] - 1
        coordinates = coordinates.clamp(0, last)
        lower = coordinates.floor().long()
        weight = (coordinates - lower).to(maps.dtype)
        weight = weight[:, None] if axis == 1 else weight
        upper = (lower + 1).clamp(max=last)
        below, above = maps.index_select(axis, lower), maps.index_select(axis, upper)
        maps = below + weight * (above - below)
    return maps


def global_window(
    semantic: Tensor, covered: tuple[float, float], rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """Sample the global probabilities in a window of the image.

    Args:
        semantic: [K, hs, ws].
        covered: (height, width) in image pixels that `semantic` covers, from the top left corner.
        rows, columns: ranges [first, last) of the window's pixels.

    Returns:
        [K, number of rows, number of columns].
    """
    y = map_coordinates(rows, 0.0, covered[0], semantic.shape[1], semantic.device)
    x = map_coordinates(columns, 0.0, covered[1], semantic.shape[2], semantic.device)
    return sample_grid(semantic, y, x)
