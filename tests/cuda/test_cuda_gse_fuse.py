"""The CUDA kernels of gse_fuse, executed by the emulator."""

import pytest
import torch
from helpers import emulator
from helpers.layouts import LAYOUTS

from rpcnn.ops import gse_fuse_reference


def run(sizes, channels, groups, layout, align_corners, offset=0.0, spread=1.0, dtype=torch.float32):
    """Results of the kernel and of the reference: [out, gradients of features, weights, biases]."""
    wide = emulator.accumulation(dtype)
    features = [LAYOUTS[layout]((offset + spread * torch.randn(2, channels, *size)).to(dtype)) for size in sizes]
    weights = [1 + 0.3 * torch.randn(channels, dtype=wide) for _ in sizes]
    biases = [0.3 * torch.randn(channels, dtype=wide) for _ in sizes]
    heights, widths, count = [f.shape[2] for f in features], [f.shape[3] for f in features], len(sizes)
    options = (2, channels, groups, layout == "channels_last", align_corners, count, heights, widths)
    fresh = lambda tensors: [torch.full_like(t, torch.nan) for t in tensors]

    out, mean, rstd = *fresh(features[:1]), *(torch.full((2, count, groups), torch.nan, dtype=wide) for _ in range(2))
    emulator.call("gse_fuse", dtype, out, mean, rstd, *options, features, weights, biases)
    grad = torch.randn_like(out)
    grads, d_gamma, d_beta = fresh(features), fresh(weights), fresh(biases)
    between = emulator.adjoint_scratch(2, channels, sizes, dtype)
    results = grads, d_gamma, d_beta
    emulator.call("gse_fuse_backward", dtype, grad, mean, rstd, between, *options, features, weights, biases, *results)
    # Truth in float64: the composition itself is no better than the kernels.
    leaves = [t.double().requires_grad_() for t in (*features, *weights, *biases)]
    levels = leaves[:count], leaves[count : 2 * count], leaves[2 * count :]
    want = gse_fuse_reference(*levels, groups, align_corners=align_corners)
    expected = torch.autograd.grad(want, leaves, grad.double())
    return [out, *grads, *d_gamma, *d_beta], [t.detach() for t in (want, *expected)]


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(6, 3), (8, 4)])
@pytest.mark.parametrize("sizes", [[(8, 12), (4, 6), (2, 3), (1, 1)], [(5, 7), (5, 3), (13, 6)]])
def test_forward_and_backward(sizes, channels, groups, align_corners, layout, order, dtype):
    emulator.schedule(order)
    for got, want in zip(*run(sizes, channels, groups, layout, align_corners, dtype=dtype), strict=True):
        torch.testing.assert_close(got.double(), want, **emulator.tolerance(dtype))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("sizes", "channels"), [([(67, 65), (34, 33)], 8), ([(13, 21), (7, 11)], 136), ([(9, 31)], 34)]
)
def test_many_stretches_of_pixels_and_pieces_of_channels(sizes, channels, layout):
    emulator.schedule(emulator.ORDERS[2])
    for got, want in zip(*run(sizes, channels, 2, layout, True), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=5e-4)


def test_a_large_offset_does_not_cancel():
    emulator.schedule(emulator.ORDERS[0])
    out, want = (results[0] for results in run([(8, 12), (4, 6)], 6, 3, "contiguous", True, offset=100.0, spread=0.1))
    torch.testing.assert_close(out.double(), want, rtol=1e-4, atol=2e-4)
