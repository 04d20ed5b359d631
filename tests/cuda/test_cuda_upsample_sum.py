"""The CUDA kernels of upsample_sum, executed by the emulator."""

import pytest
import torch
from helpers import emulator
from helpers.layouts import LAYOUTS

from rpcnn.ops import upsample_sum_reference


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("align_corners", "relu"), [(False, False), (True, True)])
@pytest.mark.parametrize("channels", [5, 8])
@pytest.mark.parametrize("sizes", [[(8, 12), (4, 6), (2, 3), (1, 1)], [(5, 7), (5, 3), (13, 7), (11, 29)]])
def test_forward_and_backward(sizes, channels, align_corners, relu, layout, order, dtype):
    check(sizes, channels, align_corners, relu, layout, order, dtype)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [136, 3])
def test_several_blocks_of_columns_and_channels(channels, layout):
    check([(3, 139), (2, 70), (3, 35)], channels, False, True, layout, emulator.ORDERS[2], torch.float32)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("sizes", [[(2, 1100), (2, 3)], [(600, 3), (2, 3), (3, 2)], [(1, 700), (1, 640)]])
def test_more_readers_than_a_block_tabulates(sizes, layout):
    check(sizes, 4, False, True, layout, emulator.ORDERS[3], torch.float32)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("relu", [False, True])
def test_nan_stays_with_the_pixels_that_are_read(relu, layout):
    emulator.schedule(emulator.ORDERS[0])
    sizes = [(5, 9), (5, 5), (3, 9)]  # corners aligned: the output's even columns and rows read a single pixel
    features = [LAYOUTS[layout](1 + torch.rand(1, 4, *size)) for size in sizes]
    grad, between = LAYOUTS[layout](torch.ones(1, 4, 5, 9)), emulator.adjoint_scratch(1, 4, sizes, torch.float32)
    grad[:, 1, 2, 4] = torch.nan
    grads = [torch.zeros_like(f) for f in features]
    heights, widths = zip(*sizes, strict=True)
    options = (1, 4, layout == "channels_last", True, relu, 3, list(heights), list(widths), features)
    emulator.call("upsample_sum_backward", torch.float32, grad, between, *options, grads)
    assert [g.isnan().nonzero().tolist() for g in grads] == [[[0, 1, 2, 4]], [[0, 1, 2, 2]], [[0, 1, 1, 4]]]


def check(sizes, channels, align_corners, relu, layout, order, dtype):
    emulator.schedule(order)
    features = [LAYOUTS[layout](torch.randn(2, channels, *size).to(dtype)) for size in sizes]
    heights, widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    options = (2, channels, layout == "channels_last", align_corners, relu, len(features), heights, widths, features)
    out = torch.full_like(features[0], torch.nan)
    emulator.call("upsample_sum", dtype, out, *options)
    leaves = [f.clone().requires_grad_() for f in features]
    want = upsample_sum_reference(leaves, align_corners, relu)
    torch.testing.assert_close(out, want.detach(), **emulator.tolerance(dtype))

    grad = torch.randn_like(out)
    grads = [torch.full_like(f, torch.nan) for f in features]
    between = emulator.adjoint_scratch(2, channels, sizes, dtype)
    emulator.call("upsample_sum_backward", dtype, grad, between, *options, grads)
    for got, expected in zip(grads, torch.autograd.grad(want, leaves, grad), strict=True):
        torch.testing.assert_close(got, expected, **emulator.tolerance(dtype))
