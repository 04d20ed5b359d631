"""grid_anchors: the anchors of all levels from their index."""

import pytest
import torch

from rpcnn.model.boxes import cell_anchors
from rpcnn.ops import grid_anchors, grid_anchors_reference

both = pytest.mark.parametrize("anchors_of", [grid_anchors, grid_anchors_reference], ids=["op", "reference"])


@both
def test_anchors_run_over_rows_columns_ratios(anchors_of):
    cells = cell_anchors(32, 4)[None]
    anchors = anchors_of(cells, [4], [(2, 3)])
    shift = torch.tensor([8.0, 4.0, 8.0, 4.0])  # row 1, column 2
    assert anchors.shape == (18, 4)
    assert torch.equal(anchors[:3], cells[0])
    assert torch.equal(anchors[15:], cells[0] + shift)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("ratios", [1, 3, 7])
@pytest.mark.parametrize(
    "sizes", [[(1, 1)], [(5, 1), (1, 7)], [(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)], [(200, 304), (3, 3)]], ids=str
)
def test_equals_reference(sizes, ratios, dtype):
    cells = torch.randn(len(sizes), ratios, 4, dtype=dtype)
    arguments = cells, [4 * 2**level for level in range(len(sizes))], sizes
    got = grid_anchors(*arguments)
    assert got.dtype == dtype and torch.equal(got, grid_anchors_reference(*arguments))


def test_any_strides_of_the_cells_and_no_gradient():
    cells = torch.randn(2, 3, 4).requires_grad_()
    got = grid_anchors(cells.transpose(0, 1).contiguous().transpose(0, 1), [4, 8], [(3, 4), (2, 2)])
    assert torch.equal(got, grid_anchors_reference(cells, [4, 8], [(3, 4), (2, 2)])) and not got.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": None}, "cells must be a tensor, got None"),
        ({"cells": torch.zeros(2, 4)}, r"cells must have shape \[L, R, 4\] with 1 to 8 levels, got \[2, 4\]"),
        ({"cells": torch.zeros(9, 3, 4)}, r"cells must have shape \[L, R, 4\] with 1 to 8 levels, got \[9, 3, 4\]"),
        ({"cells": torch.zeros(2, 0, 4)}, r"cells must have shape \[L, R, 4\] with 1 to 8 levels, got \[2, 0, 4\]"),
        ({"cells": torch.zeros(2, 3, 4).half()}, "cells must be float32 or float64, got torch.float16"),
        ({"strides": [4]}, "strides must hold one number for each of 2 levels, got 1"),
        ({"strides": [4, 0]}, r"strides must lie in 1..2147483647, got \[4, 0\]"),
        ({"strides": [2**31, 8]}, r"strides must lie in 1..2147483647, got \[2147483648, 8\]"),
        ({"strides": [4, "8"]}, r"strides\[1\] must be an integer, got '8'"),
        ({"sizes": [(3, 4)]}, "sizes must hold one size for each of 2 levels, got 1"),
        ({"sizes": [(3, 4), (0, 2)]}, r"sizes\[1\] must be positive .height, width., got \(0, 2\)"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"cells": torch.zeros(2, 3, 4), "strides": [4, 8], "sizes": [(3, 4), (2, 2)]}
    with pytest.raises(ValueError, match=f"^grid_anchors: {message}"):
        grid_anchors(**arguments | change)


@pytest.mark.parametrize(("height", "width"), [(1, 2**62), (2**62, 1), (2**30, 2**30), (0, 4)])
def test_the_raw_operator_refuses_sizes_that_no_memory_holds(height, width):
    if not hasattr(torch.ops.rpcnn, "grid_anchors"):
        pytest.skip("nothing is compiled")
    with pytest.raises(RuntimeError, match=r"grid_anchors: (heights|widths|heights and widths) must"):
        torch.ops.rpcnn.grid_anchors(torch.zeros(1, 3, 4), [4], [height], [width])
