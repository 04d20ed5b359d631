"""The ops in other people's R-CNNs: modules with torchvision's signatures, and a patch of torchvision itself."""

import contextlib
import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ._arguments import as_size
from .multilevel_roi_align import multilevel_roi_align
from .nms import batched_nms, nms
from .roi_align import roi_align

__all__ = ["MultiScaleRoIAlign", "RoIAlign", "patch_torchvision"]


class RoIAlign(nn.Module):
    """:func:`rpcnn.ops.roi_align` as a module, with the signature of ``torchvision.ops.RoIAlign``.

    Args:
        output_size, spatial_scale, sampling_ratio, aligned: see :func:`rpcnn.ops.roi_align`.

    Raises:
        ValueError: output_size is not one or two positive integers.
    """

    def __init__(
        self, output_size: int | tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool = False
    ):
        super().__init__()
        self.output_size = as_size("RoIAlign", "output_size", output_size, one_for_both=True)
        self.spatial_scale, self.sampling_ratio, self.aligned = spatial_scale, sampling_ratio, aligned

    def forward(self, input: Tensor, rois: Tensor | list[Tensor]) -> Tensor:
        """Pool maps [N, C, H, W] over rois, [R, 5] or a list of [R_n, 4], to [R, C, height, width]."""
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


class MultiScaleRoIAlign(nn.Module):
    """:func:`rpcnn.ops.multilevel_roi_align` as a module, with the signature of ``torchvision.ops.MultiScaleRoIAlign``.

    As there, the scales of the maps are inferred in the first call: powers of 2 next to the ratio of a map's height to
    that of the highest image.

    Args:
        featmap_names: which entries of the dict of maps to pool from, finest first.
        output_size: cells per box, (height, width) or one number for both.
        sampling_ratio: samples per cell and axis; see :func:`rpcnn.ops.roi_align`.
        canonical_scale, canonical_level: boxes of canonical_scale² pixels are pooled from the level of this number.

    Raises:
        ValueError: output_size is not one or two positive integers.
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | tuple[int, int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ):
        super().__init__()
        self.featmap_names, self.sampling_ratio = list(featmap_names), sampling_ratio
        self.output_size = as_size("MultiScaleRoIAlign", "output_size", output_size, one_for_both=True)
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level
        self.scales: list[float] | None = None

    def forward(self, x: Mapping[str, Tensor], boxes: list[Tensor], image_shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Pool from maps, a dict of [N, C, H_l, W_l], over boxes, one [R_n, 4] per image: [R, C, height, width].

        Raises:
            ValueError: no map has one of the names; otherwise as :func:`rpcnn.ops.multilevel_roi_align`.
        """
        maps = [level for name, level in x.items() if name in self.featmap_names]
        if not maps:
            raise ValueError(f"MultiScaleRoIAlign: x must hold one of {self.featmap_names}, got {list(x)}")
        if self.scales is None:
            highest = max(height for height, _ in image_shapes)
            self.scales = [2.0 ** round(math.log2(level.shape[2] / highest)) for level in maps]
        return _pool(
            maps, boxes, self.output_size, self.sampling_ratio, self.scales, self.canonical_scale, self.canonical_level
        )

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"featmap_names={self.featmap_names}, output_size={self.output_size}, sampling_ratio={self.sampling_ratio}"
        )


def _pool(
    maps: list[Tensor],
    boxes: list[Tensor],
    output_size: int | tuple[int, int],
    sampling_ratio: int,
    scales: list[float],
    canonical_scale: float,
    canonical_level: int,
) -> Tensor:
    """Pool as torchvision does, which counts levels by their scales.

    Of maps with scales 1/32, 1/32 and 1/64, as in its Faster R-CNN on MobileNetV3, it takes the first two.
    """
    levels = round(math.log2(scales[0] / scales[-1])) + 1
    return multilevel_roi_align(
        maps[:levels],
        boxes,
        output_size,
        scales[:levels],
        sampling_ratio,
        canonical_size=canonical_scale,
        canonical_level=canonical_level,
    )


def patch_torchvision() -> contextlib.ExitStack:
    """Replace torchvision's roi_align, nms and batched_nms by rpcnn's, wherever torchvision itself calls them.

    Its detection models, those that exist already too, then run on these kernels. MultiScaleRoIAlign makes one call for
    all levels instead of one per level. Functions that other modules imported by name stay as they are.

    Returns:
        A context manager: leaving it, or its ``close()``, restores torchvision.

    Raises:
        ImportError: torchvision is not installed.
    """
    # Whatever is imported later would take our functions and keep them when the patch is undone.
    importlib.import_module("torchvision.models.detection")
    poolers, boxes, align = (sys.modules[f"torchvision.ops.{name}"] for name in ("poolers", "boxes", "roi_align"))
    ours: dict[Callable, Callable] = {boxes.nms: nms, boxes.batched_nms: batched_nms, align.roi_align: roi_align}
    if hasattr(poolers, "_multiscale_roi_align"):  # private, so it may go; then roi_align is called for each level
        ours[poolers._multiscale_roi_align] = _multiscale_roi_align
    patched = contextlib.ExitStack()
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"]:
        for name, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__hash__", None) and value in ours:
                setattr(module, name, ours[value])
                patched.callback(setattr, module, name, value)
    return patched


def _multiscale_roi_align(
    x_filtered: list[Tensor],
    boxes: list[Tensor],
    output_size: tuple[int, int],
    sampling_ratio: int,
    scales: list[float],
    mapper: Any,
) -> Tensor:
    return _pool(x_filtered, boxes, output_size, sampling_ratio, scales, mapper.s0, mapper.lvl0)
