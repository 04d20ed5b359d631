"""RoIAlign: pools the features of each box to a fixed grid (Sec. 3.3), for the box and the parsing branch."""

import math
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import as_flag, as_float, as_int, as_size, check, check_floats, check_maps, check_tensor, shown
from ._examples import Example, people, pyramid
from ._library import compiled, dense_layout, refuse_forward_ad, register

MOST_SAMPLES = 1024
"""The largest sampling_ratio. All samples may lie in the map, so that it bounds the work; the networks take 2."""


def roi_align(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Average bilinear samples in each cell of a grid over each box, as ``torchvision.ops.roi_align``.

    A sample more than one pixel outside the map counts as 0. One inside reads two pixels of an axis, even where one has
    weight 0, so that a NaN or an infinity in either makes the cell NaN or infinite, as in torchvision. A box with a
    non-finite corner gives zeros and no gradient. float16 and bfloat16 inputs are summed in float32, and boxes keep at
    least float32 precision.

    Args:
        input: float32, float64, float16 or bfloat16 [N, C, H, W], any memory format.
        boxes: [R, 5] rows (image index, x1, y1, x2, y2), or a list of N tensors [R_n, 4], in image pixels; float32,
            float64, float16 or bfloat16. Rows in a half type can name the first 2049 images in float16, 257 in
            bfloat16.
        output_size: cells per box, (height, width) or one number for both.
        spatial_scale: map coordinates per image pixel, e.g. 1/4; positive.
        sampling_ratio: samples per cell and axis, at most 1024; if <= 0, ceil(box size / cells).
        aligned: True shifts coordinates by half a pixel, so that samples are relative to pixel centers; boxes may then
            be smaller than a pixel. False is the legacy rule: no shift, boxes at least one pixel wide and high.

    Returns:
        [R, C, height, width] in the input's dtype and memory format. Twice differentiable with respect to `input`.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range; on the CPU also for an image index that is
            not an integer in 0..N-1. On CUDA such a row gives zeros, or an error if the environment variable
            RPCNN_CHECK is 1.
        NotImplementedError: forward-mode differentiation.
    """
    op = "roi_align"
    check_maps(op, "input", input)
    boxes = boxes_with_index(op, boxes, input)
    size = as_size(op, "output_size", output_size, one_for_both=True)
    scale, ratio = as_scale(op, "spatial_scale", spatial_scale), as_ratio(op, sampling_ratio)
    aligned = as_flag(op, "aligned", aligned)
    if not compiled(input):
        return roi_align_reference(input, boxes, size, scale, ratio, aligned)
    refuse_forward_ad(op, input, boxes)
    return torch.ops.rpcnn.roi_align(input, boxes, scale, *size, ratio, aligned)


def as_scale(op: str, name: str, value: Any) -> float:
    """Convert a spatial scale. Raises ValueError unless it is a positive finite number."""
    scale = as_float(op, name, value)
    check(scale > 0, lambda: f"{op}: {name} must be positive, got {scale}")
    return scale


def as_ratio(op: str, value: Any) -> int:
    """Convert a sampling ratio. Raises ValueError unless it is an integer of at most MOST_SAMPLES."""
    ratio = as_int(op, "sampling_ratio", value)
    check(ratio <= MOST_SAMPLES, lambda: f"{op}: sampling_ratio must be at most {MOST_SAMPLES}, got {ratio}")
    return ratio


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
            len(boxes) == features.shape[0],
            lambda: (
                f"{op}: boxes must be a list of one [R, 4] tensor per image, "
                f"got {len(boxes)} for {features.shape[0]} images"
            ),
        )
        for n, b in enumerate(boxes):
            check_floats(op, f"boxes[{n}]", b)
            shape, device = list(b.shape), features.device
            check(b.dim() == 2 and shape[1] == 4, lambda: f"{op}: boxes[{n}] must have shape [R, 4], got {shape}")
            check(b.device == device, lambda: f"{op}: boxes[{n}] must be on {device}, got {b.device}")
        boxes = [_wide(b) for b in boxes]  # first, since a half type rounds the larger indices
        index = [b.new_full((b.shape[0], 1), n) for n, b in enumerate(boxes)]
        boxes = torch.cat([torch.cat(index), torch.cat(boxes)], 1) if boxes else features.new_zeros(0, 5)
    check(
        isinstance(boxes, Tensor),
        lambda: f"{op}: boxes must be a tensor [R, 5] or a list of tensors [R, 4], got {shown(boxes)}",
    )
    check_tensor(op, "boxes", boxes)
    shape = list(boxes.shape)
    check(
        boxes.dim() == 2 and shape[1] == 5,
        lambda: f"{op}: boxes must have shape [R, 5] or be a list of [R, 4], got {shape}",
    )
    check_floats(op, "boxes", boxes)
    most = _EXACT_INDICES.get(boxes.dtype, features.shape[0])
    check(
        features.shape[0] <= most,
        lambda: (
            f"{op}: boxes must be float32, float64 or a list of [R, 4] where there are more than {most} images, "
            f"got {boxes.dtype} for {features.shape[0]}"
        ),
    )
    check(boxes.device == features.device, lambda: f"{op}: boxes must be on {features.device}, got {boxes.device}")
    boxes = _wide(boxes.detach())
    must_check = boxes.device.type == "cpu" or (boxes.device.type == "cuda" and check_on_device())
    if must_check and not torch.compiler.is_compiling() and type(boxes) is Tensor and len(boxes):
        number = boxes[:, 0]
        bad = ~((number >= 0) & (number < len(features)) & (number == number.floor()))
        if bad.any():
            row = int(bad.nonzero()[0])
            last, got = len(features) - 1, float(number[row])
            raise ValueError(f"{op}: boxes[{row}, 0] must be an image index in 0..{last}, got {got:g}")
    return boxes


_EXACT_INDICES = {torch.float16: 2049, torch.bfloat16: 257}
"""The number of images whose indices a half type holds exactly: 0..2^11 and 0..2^8."""


def _wide(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype == torch.float64 else boxes.float()


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
    mean of one cell's bilinear weights over the rows of the map that the cell reads.
    """
    op = "roi_align"
    height, width = as_size(op, "output_size", output_size, one_for_both=True)
    boxes = boxes_with_index(op, boxes, input)
    spatial_scale, sampling_ratio = as_scale(op, "spatial_scale", spatial_scale), as_ratio(op, sampling_ratio)
    wide = torch.float64 if input.dtype == torch.float64 or boxes.dtype == torch.float64 else torch.float32
    outputs = []
    for index, *corners in boxes.to(wide).unbind():
        x1, y1, x2, y2 = corners
        finite = bool(torch.stack([index, *corners]).isfinite().all()) and 0 <= int(index) < len(input)
        if not finite:
            outputs.append(input.new_zeros(input.shape[1], height, width))
            continue
        rows = _pixels_of_cells(y1, y2, spatial_scale, height, input.shape[2], sampling_ratio, aligned)
        columns = _pixels_of_cells(x1, x2, spatial_scale, width, input.shape[3], sampling_ratio, aligned)
        pooled = _mean_of_cells(_mean_of_cells(input[int(index)].to(wide), 2, *columns), 1, *rows)
        outputs.append(pooled.to(input.dtype))
    if not outputs:
        # Zero boxes: keep the graph, so that the input gets a gradient of zeros.
        return input.new_zeros(0, input.shape[1], height, width) + input.sum() * 0
    return torch.stack(outputs)


def _pixels_of_cells(
    start: Tensor, end: Tensor, scale: float, cells: int, size: int, ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Return the pixels that the samples of each cell read along one axis, int64 [cells, P], and their mean weights.

    Cells that read fewer than P pixels repeat one with weight 0, since one that is not read may be NaN; those that read
    none have -1.
    """
    shift = 0.5 if aligned else 0.0
    start, end = start * scale - shift, end * scale - shift
    length = end - start if aligned else torch.clamp(end - start, min=1.0)
    bin_size, samples = float(length / cells), ratio
    if ratio <= 0:  # no sample from 2^40 on, where a cell's mean is 0 to rounding
        samples = math.ceil(bin_size) if 0 < bin_size < 2**40 else 0
    first, last = 0, cells * samples
    if not (size and math.isfinite(float(start)) and math.isfinite(bin_size)):
        last = 0
    elif last > 4 * (size + 2) and bin_size > 0:  # samples outside the map count as 0: make only those that reach it
        pitch = bin_size / samples
        first = min(max(int((-1 - float(start)) / pitch) - 2, 0), last)
        last = max(min(int((size - float(start)) / pitch) + 3, last), first)
    steps = torch.arange(first, last, device=start.device)
    cell, step = steps // max(samples, 1), (steps % max(samples, 1)).to(length)  # else step + 0.5 would be float32
    position = start + cell * (length / cells) + (step + 0.5) * (length / cells) / max(samples, 1)
    inside = (position >= -1) & (position <= size)
    cell, position = cell[inside], position[inside].clamp(0, size - 1)
    low = position.floor().long().clamp(max=size - 1)
    share = position - low

    pixel = torch.cat([low, (low + 1).clamp(max=size - 1)])
    cell_and_pixel, place = torch.unique(torch.cat([cell, cell]) * size + pixel, return_inverse=True)
    weight = length.new_zeros(len(cell_and_pixel)).index_add(0, place, torch.cat([1 - share, share]) / max(samples, 1))
    cell, pixel = cell_and_pixel // max(size, 1), cell_and_pixel % max(size, 1)
    counts = torch.bincount(cell, minlength=cells)
    column = torch.arange(len(cell), device=cell.device) - (counts.cumsum(0) - counts)[cell]
    pixels = torch.full((cells, max(int(counts.max()), 1)), -1, device=start.device)
    weights = length.new_zeros(pixels.shape)
    pixels[cell, column], weights[cell, column] = pixel, weight
    return torch.where(pixels >= 0, pixels, pixels[:, :1]), weights


def _mean_of_cells(maps: Tensor, dim: int, pixels: Tensor, weights: Tensor) -> Tensor:
    """Replace the dimension of a map [C, H, W] by the cells' means over the pixels of :func:`_pixels_of_cells`."""
    cells, most = pixels.shape
    sizes = [1, 1, 1]
    sizes[dim] = cells
    if maps.shape[dim] == 0:
        return maps.new_zeros([*maps.shape[:dim], cells, *maps.shape[dim + 1 :]])
    total = maps.new_zeros(())
    for k in range(most):
        total = total + weights[:, k].view(sizes) * maps.index_select(dim, pixels[:, k].clamp(min=0))
    return torch.where((pixels[:, 0] >= 0).view(sizes), total, 0)


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
