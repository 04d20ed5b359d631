"""RoIAlign over a feature pyramid in one call: each box pools from the level that its size selects (Sec. 3.3)."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import as_flag, as_float, as_int, as_list, as_size, check, check_floats, check_maps, promote
from ._examples import SCALES, Example, people, pyramid
from ._library import compiled, dense_layout, refuse_forward_ad, register
from .roi_align import as_ratio, as_scale, boxes_with_index, roi_align_reference


def multilevel_roi_align(
    features: list[Tensor],
    boxes: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scales: list[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
    canonical_size: float = 224,
    canonical_level: int = 4,
    area_offset: float = 0,
) -> Tensor:
    """Run :func:`roi_align` for each box on the pyramid level that :func:`roi_levels` assigns to it.

    Args:
        features: L feature maps [N, C, H_l, W_l], finest first; different float dtypes are promoted to the common one.
        boxes: [R, 5] rows (image index, x1, y1, x2, y2), or a list of N tensors [R_n, 4], in image pixels.
        output_size: cells per box, (height, width) or one number for both.
        spatial_scales: map coordinates per image pixel, one per level, e.g. 1/4, 1/8, …
        sampling_ratio, aligned: see :func:`roi_align`.
        canonical_size, canonical_level, area_offset: see :func:`roi_levels`.

    Returns:
        [R, C, height, width] in the maps' dtype and the finest level's memory format. Twice differentiable with
        respect to `features`.

    Raises:
        ValueError, NotImplementedError: as :func:`roi_align`.
    """
    op = "multilevel_roi_align"
    features = as_list(op, "features", features)
    check(len(features) > 0, lambda: f"{op}: features must hold at least one level")
    for level, feature in enumerate(features):
        check_maps(op, f"features[{level}]", feature)
        want, got = features[0], feature
        check(
            got.shape[:2] == want.shape[:2] and got.device == want.device,
            lambda: (
                f"{op}: features[{level}] must be [{want.shape[0]}, {want.shape[1]}, H, W] on {want.device}, "
                f"got {list(got.shape)} on {got.device}"
            ),
        )
    scales = _scales(op, spatial_scales)
    check(
        len(scales) == len(features),
        lambda: f"{op}: spatial_scales must have one entry per level ({len(features)}), got {len(scales)}",
    )
    boxes = boxes_with_index(op, boxes, features[0])
    size = as_size(op, "output_size", output_size, one_for_both=True)
    ratio, aligned = as_ratio(op, sampling_ratio), as_flag(op, "aligned", aligned)
    rule = _rule(op, canonical_size, canonical_level, area_offset)
    features = promote(features)
    if not compiled(features[0]):
        return multilevel_roi_align_reference(features, boxes, size, scales, ratio, aligned, *rule)
    refuse_forward_ad(op, *features, boxes)
    return torch.ops.rpcnn.multilevel_roi_align(features, boxes, scales, *size, ratio, aligned, *rule)


def _scales(op: str, spatial_scales: Iterable[float]) -> list[float]:
    """Check the scales and convert them to floats."""
    scales = as_list(op, "spatial_scales", spatial_scales, "a list of numbers")
    return [as_scale(op, f"spatial_scales[{level}]", scale) for level, scale in enumerate(scales)]


def _rule(op: str, canonical_size: float, canonical_level: int, area_offset: float) -> tuple[float, int, float]:
    """Check and convert the arguments of :func:`roi_levels` that map areas to levels."""
    canonical_size = as_float(op, "canonical_size", canonical_size)
    check(canonical_size > 0, lambda: f"{op}: canonical_size must be positive, got {canonical_size}")
    return canonical_size, as_int(op, "canonical_level", canonical_level), as_float(op, "area_offset", area_offset)


def roi_levels(
    boxes: Tensor,
    spatial_scales: list[float],
    canonical_size: float = 224,
    canonical_level: int = 4,
    area_offset: float = 0,
) -> Tensor:
    """Assign each box to a pyramid level by its area, with the rule of FPN.

    level = floor(canonical_level + log2(sqrt(area) / canonical_size + 1e-6)), clamped to the pyramid, whose finest
    level has the number -log2(spatial_scales[0]); area = (w + area_offset)(h + area_offset). A box without a positive,
    finite area is assigned to the finest level. Computed in float32 for every dtype, so that all devices agree.

    Args:
        boxes: [R, 4], (x1, y1, x2, y2) in image pixels.
        spatial_scales: map coordinates per image pixel, one per level, finest first.
        canonical_size: the square root, in pixels, of the area that `canonical_level` is for; positive.
        canonical_level: the level, counted as in P2..P6, of a box of that area.
        area_offset: added to width and height; 1 for boxes whose x2 and y2 are inclusive.

    Returns:
        int64 [R], 0 for the finest level.

    Raises:
        ValueError: an argument has the wrong shape or range.
    """
    op = "roi_levels"
    check_floats(op, "boxes", boxes)
    check(
        boxes.dim() == 2 and boxes.shape[1] == 4, lambda: f"{op}: boxes must have shape [R, 4], got {list(boxes.shape)}"
    )
    spatial_scales = _scales(op, spatial_scales)
    check(len(spatial_scales) > 0, lambda: f"{op}: spatial_scales must hold at least one number")
    canonical_size, canonical_level, area_offset = _rule(op, canonical_size, canonical_level, area_offset)
    boxes = boxes.float()
    finest = -round(math.log2(spatial_scales[0]))
    area = (boxes[:, 2] - boxes[:, 0] + area_offset) * (boxes[:, 3] - boxes[:, 1] + area_offset)
    level = torch.floor(canonical_level + torch.log2(area.clamp(min=0).sqrt() / canonical_size + 1e-6)) - finest
    level = torch.where(area.isfinite() & (area > 0), level, 0)
    return level.clamp(0, len(spatial_scales) - 1).long()


def multilevel_roi_align_reference(
    features: list[Tensor],
    boxes: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scales: list[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
    canonical_size: float = 224,
    canonical_level: int = 4,
    area_offset: float = 0,
) -> Tensor:
    """The definition of :func:`multilevel_roi_align` in plain PyTorch."""
    boxes = boxes_with_index("multilevel_roi_align", boxes, features[0])
    levels = roi_levels(boxes[:, 1:], spatial_scales, canonical_size, canonical_level, area_offset)
    pooled, order = [], []
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        rows = (levels == level).nonzero()[:, 0]
        pooled.append(roi_align_reference(feature, boxes[rows], output_size, scale, sampling_ratio, aligned))
        order.append(rows)
    return torch.cat(pooled)[torch.cat(order).argsort()]


def _fake(features, boxes, spatial_scales, output_height, output_width, *rule):
    out = features[0].new_empty(boxes.shape[0], features[0].shape[1], output_height, output_width)
    return torch.empty_like(out, memory_format=dense_layout(features[0]))


def _fake_backward(grad, boxes, spatial_scales, batch, heights, widths, *rule):
    layout = torch.channels_last if rule[-1] else torch.contiguous_format
    maps = [grad.new_empty(batch, grad.shape[1], h, w) for h, w in zip(heights, widths, strict=True)]
    return [torch.empty_like(m, memory_format=layout) for m in maps]


def _setup_context(ctx, inputs, output):
    features, boxes, ctx.scales, _, _, *ctx.rule = inputs
    ctx.batch = features[0].shape[0]
    ctx.heights, ctx.widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    ctx.channels_last = dense_layout(features[0]) == torch.channels_last
    ctx.save_for_backward(boxes)


def _backward(ctx, grad):
    size = (ctx.batch, ctx.heights, ctx.widths)
    grads = torch.ops.rpcnn.multilevel_roi_align_backward(
        grad, *ctx.saved_tensors, ctx.scales, *size, *ctx.rule, ctx.channels_last
    )
    return grads, *([None] * 9)


def _setup_context_backward(ctx, inputs, output):
    grad, boxes, ctx.scales, _, _, _, *ctx.rule, _ = inputs
    ctx.size = grad.shape[2:]
    ctx.save_for_backward(boxes)


def _double_backward(ctx, grads):
    grad = torch.ops.rpcnn.multilevel_roi_align(grads, *ctx.saved_tensors, ctx.scales, *ctx.size, *ctx.rule)
    return grad, *([None] * 11)


def _example(small: bool) -> Example:
    boxes = F.pad(people(small), (1, 0))  # all in image 0
    arguments = {"features": pyramid(small), "boxes": boxes, "output_size": 7, "spatial_scales": SCALES}
    arguments |= {"sampling_ratio": 2, "aligned": True}
    arguments |= {"canonical_size": 224.0, "canonical_level": 4, "area_offset": 0.0}
    return Example(multilevel_roi_align, multilevel_roi_align_reference, arguments, maps=("features",))


register("multilevel_roi_align", fake=_fake, setup_context=_setup_context, backward=_backward, example=_example)
register(
    "multilevel_roi_align_backward",
    fake=_fake_backward,
    setup_context=_setup_context_backward,
    backward=_double_backward,
)
