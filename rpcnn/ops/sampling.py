"""Maps sampled at the pixels of an image: what paste_parsing is defined with, of use to others beside it."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

STRIP_NUMBERS = 1 << 23
"""How many numbers at full resolution are held at a time (32 MB of float32)."""


def pixels_inside(low: float, high: float, size: int) -> tuple[int, int]:
    """The pixels [first, last) of 0..size whose centers lie in [low, high)."""
    return max(math.ceil(low - 0.5), 0), min(math.ceil(high - 0.5), size)


def strips(first: int, last: int, numbers_per_row: int) -> Iterator[tuple[int, int]]:
    """Cuts rows [first, last) into ranges of at most STRIP_NUMBERS numbers each, one row at the least."""
    step = max(STRIP_NUMBERS // numbers_per_row, 1)
    for start in range(first, last, step):
        yield start, min(start + step, last)


def map_coordinates(pixels: tuple[int, int], low: float, high: float, size: int, device: torch.device) -> Tensor:
    """Where the centers of pixels [first, last) lie on a map of `size` cells over [low, high); cells are at 0, 1, …"""
    centers = torch.arange(*pixels, dtype=torch.float64, device=device) + 0.5
    return (centers - low) * (size / (high - low)) - 0.5


def sample_grid(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bilinear samples [K, len(rows), len(columns)] of maps [K, h, w]; beyond the border, the border's values."""
    for axis, coordinates in ((1, rows), (2, columns)):
        last = maps.shape[axis] - 1
        coordinates = coordinates.clamp(0, last)
        lower = coordinates.floor().long()
        weight = (coordinates - lower).to(maps.dtype)
        weight = weight[:, None] if axis == 1 else weight
        upper = (lower + 1).clamp(max=last)
        maps = torch.lerp(maps.index_select(axis, lower), maps.index_select(axis, upper), weight)
    return maps


def global_window(
    semantic: Tensor, covered: tuple[float, float], rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """Global probabilities [K, rows, columns] in a window of the image, of which they cover (height, width) pixels."""
    y = map_coordinates(rows, 0.0, covered[0], semantic.shape[1], semantic.device)
    x = map_coordinates(columns, 0.0, covered[1], semantic.shape[2], semantic.device)
    return sample_grid(semantic, y, x)
