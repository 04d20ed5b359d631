"""Sum of all levels of a pyramid at the size of the finest level (Sec. 3.3, "High-resolution Feature")."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import as_flag, as_list, check, check_maps, promote
from ._examples import Example, pyramid
from ._library import compiled, dense_layout, refuse_forward_ad, register


def upsample_sum(features: list[Tensor], align_corners: bool = False, relu: bool = False) -> Tensor:
    """Compute ``Σ_l [relu](bilinear(features[l] → size of features[0]))`` in one pass, without up-sampled maps.

    Pixels that are NaN or infinite: as in :func:`rpcnn.ops.downsample_add`.

    Args:
        features: L maps [N, C, H_l, W_l]; different float dtypes are promoted to the common one.
        align_corners: see torch.nn.functional.interpolate.
        relu: whether to apply ReLU to each level, including level 0, before adding it.

    Returns:
        [N, C, H_0, W_0] in the first map's memory format. Differentiable once with `relu`, twice without.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
        NotImplementedError: forward-mode differentiation.
    """
    features = check_pyramid("upsample_sum", features)
    align_corners, relu = as_flag("upsample_sum", "align_corners", align_corners), as_flag("upsample_sum", "relu", relu)
    if not compiled(features[0]):
        return upsample_sum_reference(features, align_corners, relu)
    refuse_forward_ad("upsample_sum", *features)
    return torch.ops.rpcnn.upsample_sum(features, align_corners, relu)


def check_pyramid(op: str, features: list[Tensor]) -> list[Tensor]:
    """Check the levels and convert them to their common dtype. Raises ValueError."""
    features = as_list(op, "features", features)
    check(len(features) > 0, lambda: f"{op}: features must hold at least one map")
    for level, feature in enumerate(features):
        check_maps(op, f"features[{level}]", feature)
        first = features[0]
        check(
            feature.shape[:2] == first.shape[:2] and feature.device == first.device,
            lambda: (
                f"{op}: features[{level}] must be [{first.shape[0]}, {first.shape[1]}, H, W] on {first.device}, "
                f"got {list(feature.shape)} on {feature.device}"
            ),
        )
        check(
            min(feature.shape[2:]) > 0, lambda: f"{op}: features[{level}] must have pixels, got {list(feature.shape)}"
        )
    return promote(features)


def upsample_sum_reference(features: list[Tensor], align_corners: bool = False, relu: bool = False) -> Tensor:
    """The definition of :func:`upsample_sum` in plain PyTorch."""
    size = features[0].shape[2:]
    levels = (resize(feature, size, align_corners) for feature in features)
    return functools.reduce(torch.add, (F.relu(level) if relu else level for level in levels))


def resize(feature: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Resize a map bilinearly to (height, width). Supports empty batches and sizes, unlike F.interpolate."""
    if feature.shape[2:] == size:
        return feature
    if feature.numel() == 0 or 0 in size:
        return feature.new_zeros(*feature.shape[:2], *size)
    return F.interpolate(feature, size, mode="bilinear", align_corners=align_corners)


def _fake(features, align_corners, relu):
    return torch.empty_like(features[0], memory_format=dense_layout(features[0]))


def _fake_backward(grad, features, align_corners, relu):
    layout = dense_layout(grad)
    return [torch.empty_like(feature, memory_format=layout) for feature in features]


def _setup_context(ctx, inputs, output):
    features, ctx.align_corners, ctx.relu = inputs
    ctx.save_for_backward(*features)


def _backward(ctx, grad):
    features, first = list(ctx.saved_tensors), []
    if not ctx.relu:  # the finest level is added unchanged, so its gradient is the incoming one
        features, first = features[1:], [grad]
    rest = torch.ops.rpcnn.upsample_sum_backward(grad, features, ctx.align_corners, ctx.relu) if features else []
    return [*first, *rest], None, None


def _setup_context_backward(ctx, inputs, output):
    grad, features, ctx.align_corners, ctx.relu = inputs
    ctx.size, ctx.levels = grad.shape, len(features)


def _double_backward(ctx, grads):
    if ctx.relu:
        raise NotImplementedError("upsample_sum: double backward is not supported with relu=True")
    # The backward pass is linear in the incoming gradient, and its adjoint is the forward pass. Here the finest level
    # is zero, since its gradient does not pass through this op.
    zeros = grads[0].new_zeros(1, 1, 1, 1).expand(ctx.size)
    grad = torch.ops.rpcnn.upsample_sum([zeros, *grads], ctx.align_corners, False)
    return grad, [None] * ctx.levels, None, None


def _example(small: bool) -> Example:
    return Example(upsample_sum, upsample_sum_reference, {"features": pyramid(small)}, maps=("features",))


register("upsample_sum", fake=_fake, setup_context=_setup_context, backward=_backward, example=_example)
register("upsample_sum_backward", fake=_fake_backward, setup_context=_setup_context_backward, backward=_double_backward)
