"""RoIAlign: pools the features of each box to a fixed grid (Sec. 3.3), for the box and the parsing branch."""

import math
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import as_float, as_int, as_size, check, check_maps, check_tensor, shown
from ._examples import Example, people, pyramid
from ._library import compiled, dense_layout, refuse_forward_ad, register


def roi_align(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Average bilinear samples in each cell of a grid over each box, as ``torchvision.ops.roi_align``.

    A sample more than one pixel outside the map counts as 0. A box with a non-finite corner gives zeros and no
    gradient. float16 and bfloat16 inputs are summed in float32, and boxes keep at least float32 precision.

    Args:
        input: float32, float64, float16 or bfloat16 [N, C, H, W], any memory format.
        boxes: [R, 5] rows (image index, x1, y1, x2, y2), or a list of N tensors [R_n, 4]; any float dtype, in image
            pixels.
        output_size: cells per box, (height, width) or one number for both.
        spatial_scale: map coordinates per image pixel, e.g. 1/4.
        sampling_ratio: samples per cell and axis; if <= 0, ceil(box size / cells).
        aligned: True shifts coordinates by half a pixel, so that samples are relative to pixel centers; boxes may then
            be smaller than a pixel. False is the legacy rule: no shift, boxes at least one pixel wide and high.

    Returns:
        [R, C, height, width] in the input's dtype and memory format. Twice differentiable with respect to `input`.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device; on the CPU also for an image index that is not an
            integer in 0..N-1. On CUDA such a row gives zeros, or an error if the environment variable RPCNN_CHECK is 1.
        NotImplementedError: forward-mode differentiation.
    """
    op = "roi_align"
    check_maps(op, "input", input)
    boxes = boxes_with_index(op, boxes, input)
    size = as_size(op, "output_size", output_size, one_for_both=True)
    scale, ratio = as_float(op, "spatial_scale", spatial_scale), as_int(op, "sampling_ratio", sampling_ratio)
    if not compiled(input):
        return roi_align_reference(input, boxes, size, scale, ratio, aligned)
    refuse_forward_ad(op, input, boxes)
    return torch.ops.rpcnn.roi_align(input, boxes, scale, *size, ratio, bool(aligned))


def boxes_with_index(op: str, boxes: Any, features: Tensor) -> Tensor:
    """Check boxes and convert them to [R, 5] rows (image index, x1, y1, x2, y2).

    Args:
        op: the op's name, for the messages.
        boxes: [R, 5], or a list of one tensor [R_n, 4] per image.
        features: [N, C, H, W], for the number of images and the device.

    Returns:
        [R, 5], float64 if the boxes are, else float32.

    Raises:
        ValueError: as :func:`roi_align`.
    """
    if isinstance(boxes, list | tuple):
        check(
            len(boxes) == len(features),
            f"{op}: boxes must be a list of one [R, 4] tensor per image, got {len(boxes)} for {len(features)} images",
        )
        for n, b in enumerate(boxes):
            check_tensor(op, f"boxes[{n}]", b)
            shape, device = list(b.shape), features.device
            check(b.dim() == 2 and shape[1] == 4, f"{op}: boxes[{n}] must have shape [R, 4], got {shape}")
            check(b.device == device, f"{op}: boxes[{n}] must be on {device}, got {b.device}")
        index = [b.new_full((len(b), 1), n) for n, b in enumerate(boxes)]
        boxes = torch.cat([torch.cat(index), torch.cat(list(boxes))], 1) if boxes else features.new_zeros(0, 5)
    check(
        isinstance(boxes, Tensor),
        f"{op}: boxes must be a tensor [R, 5] or a list of tensors [R, 4], got {shown(boxes)}",
    )
    shape = list(boxes.shape)
    check(boxes.dim() == 2 and shape[1] == 5, f"{op}: boxes must have shape [R, 5] or be a list of [R, 4], got {shape}")
    check(boxes.is_floating_point(), f"{op}: boxes must be floating point, got {boxes.dtype}")
    check(boxes.device == features.device, f"{op}: boxes must be on {features.device}, got {boxes.device}")
    boxes = boxes.detach()
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    must_check = boxes.device.type == "cpu" or (boxes.device.type == "cuda" and check_on_device())
    if must_check and not torch.compiler.is_compiling() and type(boxes) is Tensor and len(boxes):
        number = boxes[:, 0]
        bad = ~((number >= 0) & (number < len(features)) & (number == number.floor()))
        if bad.any():
            row = int(bad.nonzero()[0])
            check(False, f"{op}: boxes[{row}, 0] must be an image index in 0..{len(features) - 1}, got {number[row]:g}")
    return boxes


def check_on_device() -> bool:
    """Whether to run the checks that synchronize with the GPU (RPCNN_CHECK=1)."""
    return os.environ.get("RPCNN_CHECK") == "1"


def roi_align_reference(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """The definition of :func:`roi_align` in plain PyTorch.

    RoIAlign is linear in the input and separable: out[r, c] = Wy[r] · input[b, c] · Wx[r]ᵀ, where a row of Wy holds the
    mean of one cell's bilinear weights over the map's rows.
    """
    height, width = as_size("roi_align", "output_size", output_size, one_for_both=True)
    boxes = boxes_with_index("roi_align", boxes, input)
    wide = torch.float64 if input.dtype == torch.float64 or boxes.dtype == torch.float64 else torch.float32
    outputs = []
    for index, *corners in boxes.to(wide).unbind():
        x1, y1, x2, y2 = corners
        finite = bool(torch.stack([index, *corners]).isfinite().all()) and 0 <= int(index) < len(input)
        if not finite:
            outputs.append(input.new_zeros(input.shape[1], height, width))
            continue
        y = _axis_weights(y1, y2, spatial_scale, height, input.shape[2], sampling_ratio, aligned)
        x = _axis_weights(x1, x2, spatial_scale, width, input.shape[3], sampling_ratio, aligned)
        pooled = torch.einsum("ph,chw,qw->cpq", y, input[int(index)].to(wide), x)
        outputs.append(pooled.to(input.dtype))
    if not outputs:
        # Zero boxes: keep the graph, so that the input gets a gradient of zeros.
        return input.new_zeros(0, input.shape[1], height, width) + input.sum() * 0
    return torch.stack(outputs)


def _axis_weights(start: Tensor, end: Tensor, scale: float, cells: int, size: int, ratio: int, aligned: bool) -> Tensor:
    """Return [cells, size]: the mean bilinear weights of each cell's samples along one axis."""
    shift = 0.5 if aligned else 0.0
    start, end = start * scale - shift, end * scale - shift
    length = end - start if aligned else torch.clamp(end - start, min=1.0)
    samples = ratio if ratio > 0 else max(math.ceil(float(length) / cells), 0)
    weights = length.new_zeros(cells, size)
    if samples == 0:
        return weights
    # Samples outside the map count as 0 but stay in the divisor. Only samples that can reach the map are evaluated.
    steps = torch.arange(cells * samples, device=start.device)
    if samples * cells > 4 * (size + 2) and length > 0:
        pitch = float(length) / cells / samples
        first = max(int((-1 - float(start)) / pitch) - 2, 0)
        last = min(int((size - float(start)) / pitch) + 3, cells * samples)
        steps = torch.arange(first, max(last, first), device=start.device)
    cell, step = (steps // samples), (steps % samples).to(weights)  # else step + 0.5 would be float32
    position = start + cell * (length / cells) + (step + 0.5) * (length / cells) / samples
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    fraction = position - low
    share = inside.to(weights) / samples
    weights.index_put_((cell, low), (1 - fraction) * share, accumulate=True)
    weights.index_put_((cell, high), fraction * share, accumulate=True)
    return weights


def _fake(input, boxes, spatial_scale, output_height, output_width, sampling_ratio, aligned):
    out = input.new_empty(boxes.shape[0], input.shape[1], output_height, output_width)
    return torch.empty_like(out, memory_format=dense_layout(input))


def _fake_backward(grad, boxes, spatial_scale, batch, height, width, sampling_ratio, aligned, channels_last):
    out = grad.new_empty(batch, grad.shape[1], height, width)
    return torch.empty_like(out, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _setup_context(ctx, inputs, output):
    input, boxes, ctx.scale, _, _, *ctx.rule = inputs
    ctx.batch, _, ctx.height, ctx.width = input.shape
    ctx.channels_last = dense_layout(input) == torch.channels_last
    ctx.save_for_backward(boxes)


def _backward(ctx, grad):
    size = (ctx.batch, ctx.height, ctx.width)
    grad_input = torch.ops.rpcnn.roi_align_backward(
        grad, *ctx.saved_tensors, ctx.scale, *size, *ctx.rule, ctx.channels_last
    )
    return grad_input, None, None, None, None, None, None


def _setup_context_backward(ctx, inputs, output):
    grad, boxes, ctx.scale, _, _, _, *ctx.rule, _ = inputs
    ctx.size = grad.shape[2:]
    ctx.save_for_backward(boxes)


def _double_backward(ctx, grad_input):
    # The backward pass is linear in the incoming gradient, and its adjoint is the forward pass.
    grad = torch.ops.rpcnn.roi_align(grad_input, *ctx.saved_tensors, ctx.scale, *ctx.size, *ctx.rule)
    return grad, *([None] * 8)


def _example(small: bool) -> Example:
    boxes = F.pad(people(small), (1, 0))  # all in image 0
    arguments = {"input": pyramid(small)[0], "boxes": boxes, "output_size": (7, 7), "spatial_scale": 0.25}
    arguments |= {"sampling_ratio": 2, "aligned": True}
    return Example(roi_align, roi_align_reference, arguments, maps=("input",))


register("roi_align", fake=_fake, setup_context=_setup_context, backward=_backward, example=_example)
register("roi_align_backward", fake=_fake_backward, setup_context=_setup_context_backward, backward=_double_backward)
