"""The CUDA kernels of group_norm, executed by the emulator."""

import pytest
import torch
from helpers import emulator
from helpers.layouts import LAYOUTS

from rpcnn.ops import group_norm_reference

DENSE = ["contiguous", "channels_last"]


def run(size, channels, groups, layout, relu=False, with_residual=False, images=2, offset=0.0, dtype=torch.float32):
    """Results of the kernels and of the reference in float64: [out, gradients of input, weight, bias, residual]."""
    wide, shape = emulator.accumulation(dtype), (images, channels, *size)
    draw = lambda shift=0.0: LAYOUTS[layout]((shift + torch.randn(shape)).to(dtype))
    x, residual, grad = draw(offset), draw() if with_residual else None, draw()
    weight, bias = 1 + 0.3 * torch.randn(channels, dtype=wide), 0.3 * torch.randn(channels, dtype=wide)
    fresh = lambda like: torch.full_like(like, torch.nan)
    pixels = size[0] * size[1]
    mean, rstd = (torch.full((images, groups), torch.nan, dtype=wide) for _ in range(2))
    partial = torch.full((images * min(max(-(-pixels // 1024), 1), 128) * 2 * channels,), torch.nan, dtype=wide)
    given = (dtype, images, channels, pixels, groups, layout == "channels_last", x)
    vectors = (weight, bias, mean, rstd, partial, relu)
    out = fresh(x)
    emulator.call("group_norm", *given, residual, *vectors, out)
    grads = [fresh(x), fresh(weight), fresh(bias)]
    masks = with_residual and relu
    grad_residual = fresh(x) if masks else None
    partial.fill_(torch.nan)
    onto = residual if relu else None
    emulator.call("group_norm_backward", *given, onto, *vectors, grad, grads[0], grad_residual, *grads[1:])
    leaves = [t.double().requires_grad_() for t in (x, weight, bias, *([residual] if masks else []))]
    plus = leaves[3] if masks else residual.double() if with_residual else None
    want = group_norm_reference(leaves[0], groups, leaves[1], leaves[2], relu=relu, residual=plus)
    expected = torch.autograd.grad(want, leaves, grad.double())
    return [out, *grads, *([grad_residual] if masks else [])], [t.detach() for t in (want, *expected)]


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize(("relu", "with_residual"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize(("channels", "groups"), [(6, 3), (64, 4)])
def test_forward_and_backward(channels, groups, relu, with_residual, layout, order, dtype):
    emulator.schedule(order)
    results = run((5, 9), channels, groups, layout, relu, with_residual, dtype=dtype)
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), want, **emulator.tolerance(dtype))


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize(
    ("size", "channels", "groups"), [((37, 71), 8, 2), ((3, 5), 136, 2), ((1, 1), 96, 3), ((40, 30), 34, 17)]
)
def test_many_stretches_and_groups_across_pieces(size, channels, groups, layout):
    emulator.schedule(emulator.ORDERS[2])
    for got, want in zip(*run(size, channels, groups, layout, relu=True, images=3), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("layout", DENSE)
def test_a_large_offset_does_not_cancel(layout):
    emulator.schedule(emulator.ORDERS[0])
    got, want = (results[0] for results in run((24, 20), 8, 2, layout, offset=1000.0))
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-3)
