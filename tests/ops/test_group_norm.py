import itertools

import pytest
import torch
from helpers.layouts import LAYOUTS, TOLERANCES, needs_kernels

from rpcnn.ops import group_norm, group_norm_reference

DENSE = ["contiguous", "channels_last"]
SIZES = [(1, 1), (1, 7), (9, 1), (17, 23), (64, 48)]
MODES = list(itertools.product([False, True], [False, True]))  # relu, with residual


def inputs(channels, size, images=2, offset=0.0, spread=1.0, dtype=torch.float32, layout="contiguous"):
    draw = lambda *shape: torch.randn(shape, dtype=dtype)
    maps = [LAYOUTS[layout](draw(images, channels, *size)) for _ in range(2)]
    return offset + spread * maps[0], 1 + 0.3 * draw(channels), 0.3 * draw(channels), maps[1]


def both(x, groups, weight, bias, relu, residual):
    """The op's result, and the reference's in float64: in float32 PyTorch's is no better than ours."""
    wide = [None if t is None else t.double() for t in (x, weight, bias, residual)]
    out = group_norm(x, groups, weight, bias, relu=relu, residual=residual)
    want = group_norm_reference(wide[0], groups, wide[1], wide[2], relu=relu, residual=wide[3])
    return out, want.to(out.dtype)


@pytest.mark.parametrize(("relu", "with_residual"), MODES)
@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 6), (96, 32)])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layout", DENSE)
def test_equals_reference(layout, size, channels, groups, relu, with_residual):
    x, weight, bias, residual = inputs(channels, size, layout=layout)
    out, want = both(x, groups, weight, bias, relu, residual if with_residual else None)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout):
    x, weight, bias, residual = inputs(6, (9, 11))
    out, want = both(LAYOUTS[layout](x), 3, weight, bias, True, residual)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=2e-5)
    last = layout == "channels_last"
    assert out.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (100.0, 0.1), (1e4, 1.0)])
def test_is_more_accurate_than_pytorch(offset, spread, layout):
    x, weight, bias, _ = inputs(8, (32, 48), offset=offset, spread=spread, layout=layout)
    slope = torch.linspace(-1, 1, 48)

    def value_and_gradient(f, dtype):
        leaf = x.to(dtype).requires_grad_()
        out = f(leaf, 4, weight.to(dtype), bias.to(dtype))
        return out.detach(), torch.autograd.grad((out * slope.to(dtype)).sum(), leaf)[0]

    truth = value_and_gradient(group_norm_reference, torch.float64)
    got, composed = (value_and_gradient(f, torch.float32) for f in (group_norm, group_norm_reference))
    for a, b, t in zip(got, composed, truth, strict=True):
        scale = t.square().mean().sqrt()
        assert (a - t).square().mean().sqrt() <= 1.1 * (b - t).square().mean().sqrt() + 1e-6 * scale


@pytest.mark.parametrize("layout", DENSE)
def test_a_nan_spoils_its_group_and_no_other(layout):
    x, weight, bias, _ = inputs(4, (6, 8))
    x[1, 3, 2, 2] = torch.nan
    out = group_norm(LAYOUTS[layout](x), 2, weight, bias)
    assert out[1, 2:].isnan().all() and out[0].isfinite().all() and out[1, :2].isfinite().all()


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_maps_keep_their_dtype_and_float_statistics(dtype, layout):
    x, weight, bias, residual = inputs(8, (17, 24), layout=layout)
    out, want = both(x.to(dtype), 4, weight, bias, True, residual.to(dtype))
    assert out.dtype == dtype and out.stride() == x.stride()
    torch.testing.assert_close(out, want, **TOLERANCES[dtype])


def test_maps_of_two_dtypes_are_promoted():
    x, weight, bias, residual = inputs(4, (3, 5))
    assert group_norm(x.half(), 2, weight, bias, residual=residual).dtype == torch.float32


@pytest.mark.parametrize(("relu", "with_residual"), MODES)
@pytest.mark.parametrize("layout", DENSE)
def test_gradients(layout, relu, with_residual):
    x, weight, bias, residual = inputs(4, (4, 5), dtype=torch.float64, layout=layout)
    leaves = [t.requires_grad_() for t in (x, weight, bias, *([residual] if with_residual else []))]
    f = lambda x, w, b, r=None: group_norm(x, 2, w, b, relu=relu, residual=r)
    assert torch.autograd.gradcheck(f, leaves)


@pytest.mark.parametrize("layout", DENSE)
def test_gradients_equal_the_compositions_in_float32(layout):
    leaves = [t.requires_grad_() for t in inputs(64, (32, 40), layout=layout)]
    grads = []
    for f in (group_norm, group_norm_reference):
        out = f(leaves[0], 32, leaves[1], leaves[2], relu=True, residual=leaves[3])
        grads.append(torch.autograd.grad((out * torch.linspace(-1, 1, 40)).sum(), leaves))
    for got, expected in zip(*grads, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("layout", DENSE)
def test_the_same_for_any_thread_count(layout):
    x, weight, bias, residual = inputs(16, (40, 50), layout=layout)
    leaves, results = [x.requires_grad_(), weight.requires_grad_()], []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = group_norm(x, 4, weight, bias, relu=True, residual=residual)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@needs_kernels
@pytest.mark.parametrize(("relu", "with_residual"), MODES)
def test_opcheck(relu, with_residual):
    x, weight, bias, residual = (t.requires_grad_() for t in inputs(4, (6, 8)))
    arguments = (x, weight, bias, 2, 1e-5, relu, residual if with_residual else None)
    torch.library.opcheck(torch.ops.rpcnn.group_norm, arguments)


@needs_kernels
def test_the_raw_operator_checks_too():
    x, weight, bias, residual = inputs(4, (6, 8))
    with pytest.raises(RuntimeError, match="num_groups must divide 4"):
        torch.ops.rpcnn.group_norm(x, weight, bias, 3, 1e-5, False, None)
    with pytest.raises(RuntimeError, match="weight and bias"):
        torch.ops.rpcnn.group_norm(x, weight.double(), bias, 2, 1e-5, False, None)
    with pytest.raises(RuntimeError, match="residual must have"):
        torch.ops.rpcnn.group_norm(x, weight, bias, 2, 1e-5, False, residual[:1])


@needs_kernels
def test_forward_mode_is_refused():
    x, weight, bias, _ = inputs(4, (6, 8))
    with pytest.raises(NotImplementedError, match="group_norm"):
        torch.func.jvp(lambda w: group_norm(x, 2, w, bias), (weight,), (weight,))


@needs_kernels
def test_double_backward_is_refused():
    x, weight, bias, _ = inputs(4, (6, 8))
    out = group_norm(x.requires_grad_(), 2, weight, bias)
    grad = torch.autograd.grad(out.square().sum(), x, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="group_norm: double backward"):
        grad.sum().backward()


def test_a_group_of_one_value_gives_the_bias():
    """PyTorch's module refuses a single image of groups of one value; the function behind it does not."""
    arguments = torch.randn(1, 2, 1, 1), 2, torch.rand(2), torch.rand(2)
    for function in (group_norm, group_norm_reference):
        torch.testing.assert_close(function(*arguments).flatten(), arguments[3])


def test_empty_batch():
    x, weight, bias, _ = inputs(4, (6, 8), images=0)
    assert group_norm(x, 2, weight, bias).shape == (0, 4, 6, 8)
    leaf = weight.requires_grad_()
    assert not torch.autograd.grad(group_norm(x, 2, leaf, bias).sum(), leaf)[0].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_groups": 3}, "group_norm: num_groups must divide 4, got 3"),
        ({"weight": torch.ones(3)}, r"group_norm: weight must be \[4\] floats"),
        ({"residual": torch.ones(1, 4, 2, 3)}, r"group_norm: residual must have the input's shape \[1, 4, 2, 2\]"),
        ({"input": torch.ones(4, 2, 2)}, r"group_norm: input must have shape \[N, C, H, W\]"),
        ({"input": torch.ones(1, 4, 0, 2)}, "group_norm: input must have pixels"),
        ({"eps": "small"}, "group_norm: eps must be a number"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"input": torch.ones(1, 4, 2, 2), "num_groups": 2, "weight": torch.ones(4), "bias": torch.zeros(4)}
    with pytest.raises(ValueError, match=message):
        group_norm(**good | change)
