"""The CUDA kernel of grid_anchors, executed by the emulator."""

import pytest
import torch
from helpers import emulator

from rpcnn.ops import grid_anchors_reference


def emulated(cells, strides, sizes):
    count = cells.shape[1] * sum(height * width for height, width in sizes)
    anchors = torch.full((count, 4), torch.nan, dtype=cells.dtype)
    heights, widths = map(list, zip(*sizes, strict=True))
    emulator.call("grid_anchors", cells.dtype, cells, *cells.shape[:2], strides, heights, widths, anchors)
    return anchors


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "sizes", [[(1, 1)], [(5, 1), (1, 7)], [(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)], [(2, 2)] * 8], ids=str
)
def test_equals_reference(sizes, dtype, order):
    emulator.schedule(order)
    cells = torch.randn(len(sizes), 3, 4, dtype=dtype)
    strides = [4 * 2**level for level in range(len(sizes))]
    assert torch.equal(emulated(cells, strides, sizes), grid_anchors_reference(cells, strides, sizes))
