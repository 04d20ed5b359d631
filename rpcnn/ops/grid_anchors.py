"""Anchors of all levels of a pyramid (Sec. 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._arguments import as_int, as_list, as_size, check, check_tensor
from ._examples import Example, image_size
from ._library import compiled, register

MOST_LEVELS = 8


def grid_anchors(cells: Tensor, strides: Sequence[int], sizes: Sequence[Sequence[int]]) -> Tensor:
    """Repeat the anchors of each level's top left cell over all cells of its feature map.

    Args:
        cells: float32 or float64 [L, R, 4], R anchors of the top left cell of each of 1 to 8 levels, in pixels.
        strides: pixels from a cell to the next, one number per level.
        sizes: (height, width) of each level's feature map in cells.

    Returns:
        [A, 4] in the dtype of the cells, all levels one after another, each ordered by row, column, ratio. Not
        differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    op = "grid_anchors"
    check_tensor(op, "cells", cells)
    check(
        cells.dim() == 3 and 0 < cells.shape[0] <= MOST_LEVELS and cells.shape[1] > 0 and cells.shape[2] == 4,
        lambda: f"{op}: cells must have shape [L, R, 4] with 1 to {MOST_LEVELS} levels, got {list(cells.shape)}",
    )
    check(
        cells.dtype in (torch.float32, torch.float64),
        lambda: f"{op}: cells must be float32 or float64, got {cells.dtype}",
    )
    levels = len(cells)
    strides = [as_int(op, f"strides[{i}]", s) for i, s in enumerate(as_list(op, "strides", strides, "a list of ints"))]
    sizes = [as_size(op, f"sizes[{i}]", s) for i, s in enumerate(as_list(op, "sizes", sizes, "a list of sizes"))]
    check(
        len(strides) == levels,
        lambda: f"{op}: strides must hold one number for each of {levels} levels, got {len(strides)}",
    )
    check(
        min(strides) > 0 and max(strides) < 2**31,
        lambda: f"{op}: strides must lie in 1..2147483647, got {strides}",
    )
    check(len(sizes) == levels, lambda: f"{op}: sizes must hold one size for each of {levels} levels, got {len(sizes)}")
    if not compiled(cells):
        return grid_anchors_reference(cells, strides, sizes)
    heights, widths = zip(*sizes, strict=True)
    return torch.ops.rpcnn.grid_anchors(cells.detach(), strides, list(heights), list(widths))


@torch.no_grad()
def grid_anchors_reference(cells: Tensor, strides: Sequence[int], sizes: Sequence[Sequence[int]]) -> Tensor:
    """The definition of :func:`grid_anchors` in plain PyTorch."""
    anchors = []
    for cell, stride, (height, width) in zip(cells, strides, sizes, strict=True):
        x = torch.arange(width, device=cell.device, dtype=cell.dtype) * stride
        y = torch.arange(height, device=cell.device, dtype=cell.dtype) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack([x, y, x, y], dim=-1)
        anchors.append((shifts[:, :, None] + cell).reshape(-1, 4))
    return torch.cat(anchors)


def _fake(cells, strides, heights, widths):
    places = sum(height * width for height, width in zip(heights, widths, strict=True))
    return cells.new_empty(cells.shape[1] * places, 4)


def _example(small: bool) -> Example:
    height, width = image_size(small)
    strides = [4, 8, 16, 32, 64]
    half = torch.tensor([[12.0, 6.0], [8.0, 8.0], [6.0, 12.0]]) * torch.tensor(strides)[:, None, None]
    arguments = {
        "cells": torch.cat([-half, half], 2) + torch.tensor(strides)[:, None, None] / 2,
        "strides": strides,
        "sizes": [(-(-height // s), -(-width // s)) for s in strides],
    }
    return Example(grid_anchors, grid_anchors_reference, arguments, differentiable=False, exact=True)


register("grid_anchors", fake=_fake, example=_example)
