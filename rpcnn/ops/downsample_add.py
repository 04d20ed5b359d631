"""Adds one feature map, resized to each level, to a whole pyramid (Sec. 3.3, "Multi-scale Features Fusion")."""

import torch
from torch import Tensor

from ._arguments import as_list, check, check_maps, promote
from ._examples import Example, pyramid
from ._library import compiled, dense_layout, refuse_forward_ad, register
from .upsample_sum import resize


def downsample_add(feature: Tensor, pyramid: list[Tensor]) -> list[Tensor]:
    """Compute ``[P_l + bilinear(feature → size of P_l)]`` for every level in one call.

    The interpolation is PyTorch's bilinear with align_corners=False and without antialiasing. It reads two pixels of an
    axis, even where one has weight 0, so that a NaN or an infinity in either makes the output NaN or infinite; an axis
    that keeps its size is copied. At half, quarter and
    eighth size it is the mean of the central 2×2 pixels of each cell.

    Args:
        feature: float32, float64, float16 or bfloat16 [N, C, H, W].
        pyramid: L maps [N, C, H_l, W_l]; different float dtypes are promoted to the common one.

    Returns:
        L maps of the pyramid's shapes in the feature's memory format. Twice differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
        NotImplementedError: forward-mode differentiation.
    """
    check_maps("downsample_add", "feature", feature)
    check(min(feature.shape[2:]) > 0, lambda: f"downsample_add: feature must have pixels, got {list(feature.shape)}")
    pyramid = as_list("downsample_add", "pyramid", pyramid)
    for level, maps in enumerate(pyramid):
        check_maps("downsample_add", f"pyramid[{level}]", maps)
        check(
            maps.shape[:2] == feature.shape[:2] and maps.device == feature.device,
            lambda: (
                f"downsample_add: pyramid[{level}] must be [{feature.shape[0]}, {feature.shape[1]}, H, W] on "
                f"{feature.device}, got {list(maps.shape)} on {maps.device}"
            ),
        )
    feature, *pyramid = promote([feature, *pyramid])
    if not compiled(feature):
        return downsample_add_reference(feature, pyramid)
    refuse_forward_ad("downsample_add", feature, *pyramid)
    return torch.ops.rpcnn.downsample_add(feature, pyramid) if pyramid else []


def downsample_add_reference(feature: Tensor, pyramid: list[Tensor]) -> list[Tensor]:
    """The definition of :func:`downsample_add` in plain PyTorch."""
    return [maps + resize(feature, maps.shape[2:], align_corners=False) for maps in pyramid]


def _fake(feature, pyramid):
    layout = dense_layout(feature)
    return [torch.empty_like(maps, memory_format=layout) for maps in pyramid]


def _fake_backward(grads, height, width):
    layout = dense_layout(grads[0])
    images, channels = grads[0].shape[:2]
    return torch.empty_like(grads[0].new_empty(images, channels, height, width), memory_format=layout)


def _setup_context(ctx, inputs, output):
    ctx.size = inputs[0].shape[2:]


def _backward(ctx, grads):
    return torch.ops.rpcnn.downsample_add_backward(grads, *ctx.size), grads


def _setup_context_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs[0])


def _double_backward(ctx, grad_feature):
    pyramid = [torch.zeros_like(maps) for maps in ctx.saved_tensors]
    return torch.ops.rpcnn.downsample_add(grad_feature, pyramid), None, None


def _example(small: bool) -> Example:
    arguments = {"feature": pyramid(small)[0], "pyramid": pyramid(small)}
    return Example(downsample_add, downsample_add_reference, arguments, maps=("feature", "pyramid"))


register("downsample_add", fake=_fake, setup_context=_setup_context, backward=_backward, example=_example)
register(
    "downsample_add_backward", fake=_fake_backward, setup_context=_setup_context_backward, backward=_double_backward
)
