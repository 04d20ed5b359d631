"""GroupNorm with an optional residual and ReLU in one op; maps keep their dtype and memory format."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import as_flag, as_float, as_int, check, check_floats, check_maps, promote
from ._examples import Example, pyramid
from ._library import compiled, dense_layout, refuse_forward_ad, register


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """Compute ``GroupNorm(input) + residual`` and, if `relu`, its ReLU.

    torch.nn.functional.group_norm makes a contiguous float32 map of a channels_last bfloat16 one under CUDA's autocast.
    Here float16 and bfloat16 are computed in float32 and stored as they came. The backward pass needs the input only
    (with ReLU and residual both), and recomputes the ReLU's mask.

    Args:
        input: [N, C, H, W].
        num_groups: number of groups; must divide C.
        weight, bias: [C], the affine parameters. Converted to float32, or to float64 for a float64 input.
        eps: added to the variance; not negative.
        relu: whether to apply ReLU.
        residual: map of the input's shape, added before the ReLU. Input and residual are promoted to the common dtype.

    Returns:
        [N, C, H, W] in the common dtype and the input's memory format. Differentiable once with respect to input,
        weight, bias and residual.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
        NotImplementedError: forward-mode differentiation, double backward.
    """
    op = "group_norm"
    check_maps(op, "input", input)
    check(input.shape[2] > 0 and input.shape[3] > 0, lambda: f"{op}: input must have pixels, got {list(input.shape)}")
    channels = input.shape[1]
    num_groups, eps, relu = as_int(op, "num_groups", num_groups), as_eps(op, eps), as_flag(op, "relu", relu)
    check(
        num_groups > 0 and channels % num_groups == 0,
        lambda: f"{op}: num_groups must divide {channels}, got {num_groups}",
    )
    if residual is not None:
        check_maps(op, "residual", residual)
        shape, device = list(residual.shape), residual.device
        check(
            shape == list(input.shape) and device == input.device,
            lambda: (
                f"{op}: residual must have the input's shape {list(input.shape)} and device {input.device}, "
                f"got {shape} on {device}"
            ),
        )
        input, residual = promote([input, residual])
    for name, vector in (("weight", weight), ("bias", bias)):
        check_floats(op, name, vector)
        check(
            list(vector.shape) == [channels] and vector.device == input.device,
            lambda: (
                f"{op}: {name} must be [{channels}] floats on {input.device}, "
                f"got {list(vector.shape)} {vector.dtype} on {vector.device}"
            ),
        )
    affine = torch.float64 if input.dtype == torch.float64 else torch.float32
    weight, bias = weight.to(affine), bias.to(affine)
    if not compiled(input):
        return group_norm_reference(input, num_groups, weight, bias, eps, relu, residual)
    refuse_forward_ad(op, input, weight, bias, *([] if residual is None else [residual]))
    return torch.ops.rpcnn.group_norm(input, weight, bias, num_groups, eps, relu, residual)[0]


def as_eps(op: str, value: Any) -> float:
    """Convert what is added to the variance. Raises ValueError unless it is a finite number of at least 0."""
    eps = as_float(op, "eps", value)
    check(eps >= 0, lambda: f"{op}: eps must be at least 0, got {eps}")
    return eps


def group_norm_reference(
    input: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """The definition of :func:`group_norm` in plain PyTorch; float16 and bfloat16 maps are computed in float32."""
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    out = input.to(wide)
    if input.numel():
        out = torch.group_norm(out, num_groups, weight.to(wide), bias.to(wide), eps)
    if residual is not None:
        out = out + residual.to(wide)
    return (F.relu(out) if relu else out).to(input.dtype, memory_format=dense_layout(input))


def _fake(input, weight, bias, num_groups, eps, relu, residual):
    statistics = weight.new_empty(input.shape[0], num_groups)
    return torch.empty_like(input, memory_format=dense_layout(input)), statistics, torch.empty_like(statistics)


def _fake_backward(grad, input, weight, bias, mean, rstd, num_groups, relu, residual):
    grad_input = torch.empty_like(input, memory_format=dense_layout(input))
    grad_residual = torch.empty_like(grad_input) if relu and residual is not None else input.new_empty(0)
    return grad_input, torch.empty_like(weight), torch.empty_like(bias), grad_residual


def _setup_context(ctx, inputs, output):
    input, weight, bias, ctx.num_groups, _, ctx.relu, residual = inputs
    ctx.has_residual = residual is not None
    ctx.mark_non_differentiable(*output[1:])  # the first output's gradient includes the path through the statistics
    ctx.set_materialize_grads(False)  # do not make zero gradients for the statistics
    ctx.save_for_backward(input, weight, bias, *output[1:], residual if ctx.relu else None)


def _backward(ctx, grad, grad_mean, grad_rstd):
    if grad is None:
        return (None,) * 7
    input, weight, bias, mean, rstd, residual = ctx.saved_tensors
    grad_input, grad_weight, grad_bias, grad_residual = torch.ops.rpcnn.group_norm_backward(
        grad, input, weight, bias, mean, rstd, ctx.num_groups, ctx.relu, residual
    )
    onto = (grad_residual if ctx.relu else grad) if ctx.has_residual else None
    return grad_input, grad_weight, grad_bias, None, None, None, onto


def _double_backward(ctx, *grads):
    raise NotImplementedError("group_norm: double backward is not supported")


def _example(small: bool) -> Example:
    level, ramp = pyramid(small)[0], torch.linspace(-0.5, 0.5, 32 if small else 256)
    arguments = {"input": level, "num_groups": 32, "weight": 1 + ramp, "bias": ramp, "eps": 1e-5}
    arguments |= {"relu": True, "residual": level.flip(3)}
    return Example(group_norm, group_norm_reference, arguments, maps=("input", "residual"))


register("group_norm", fake=_fake, setup_context=_setup_context, backward=_backward, example=_example)
register("group_norm_backward", fake=_fake_backward, backward=_double_backward)
