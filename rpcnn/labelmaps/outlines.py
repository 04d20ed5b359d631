"""Segmentations as COCO has them, painted into label maps: polygons, and run lengths, compressed or not."""

from typing import Any

import numpy as np

from .run_lengths import paint_runs


def paint_segmentation(columns: np.ndarray, segmentation: Any, value: int, name: str) -> None:
    """Write a value into a map where a segmentation is.

    Args:
        columns: uint8 [W, H], contiguous: the transposed map, since runs go down the columns.
        segmentation: a JSON value: polygons [[x, y, x, y, …], …] in pixels, or {size: [H, W], counts}, in which counts
            are a list or pycocotools' compressed text.
        value: 0..255.
        name: of the segmentation, for messages.

    Raises:
        ValueError: it is none of these, or does not fit the map; some pixels may have been written. The message begins
            with `name`.
    """
    width, height = columns.shape
    counts: Any = None
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(size, list) or size != [height, width]:
            raise ValueError(f"{name}.size: must be the image's {[height, width]}, got {str(size)[:60]}")
        counts = segmentation.get("counts")
    elif not isinstance(segmentation, list):
        raise ValueError(f"{name}: must be polygons or run lengths, got {type(segmentation).__name__}")
    try:
        if isinstance(segmentation, list):
            counts = _polygon_runs(segmentation, height, width)
        elif isinstance(counts, list):
            counts = _plain_runs(counts, height, width)
        paint_runs(columns, counts, value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: must be polygons or run lengths ({error})") from None


def _plain_runs(counts: list, height: int, width: int) -> bytes:
    from pycocotools import mask as codes

    if not all(type(count) is int and 0 <= count <= height * width for count in counts):
        raise ValueError("counts must be lengths in pixels")
    if sum(counts) != height * width:
        raise ValueError(f"run lengths must make up the {height * width} pixels of the size, got {sum(counts)}")
    return codes.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]


def _polygon_runs(polygons: list, height: int, width: int) -> bytes:
    from pycocotools import mask as codes

    if not polygons or not all(isinstance(polygon, list) for polygon in polygons):
        raise ValueError("polygons must be lists of numbers")
    corners = [np.asarray(polygon, float).reshape(-1, 2).ravel().tolist() for polygon in polygons]
    if any(len(polygon) < 6 for polygon in corners):
        raise ValueError("a polygon must have at least three points")
    far = 10 * (width + height)  # pycocotools walks along every edge
    if not all(-far <= number <= far for polygon in corners for number in polygon):
        raise ValueError(f"a polygon's points must lie within {far} pixels")
    return codes.merge(codes.frPyObjects(corners, height, width))["counts"]
