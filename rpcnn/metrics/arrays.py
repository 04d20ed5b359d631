"""Converts scores and boxes to float64 arrays; errors name the argument."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rpcnn.labelmaps.people import as_array


def as_scores(name: str, scores: Any, count: int) -> np.ndarray:
    """Convert scores to float64 [count]. Raises ValueError if the shape differs or a score is not finite."""
    scores = as_array(scores).astype(np.float64)
    if scores.shape != (count,):
        raise ValueError(
            f"rpcnn.metrics: {name} must have shape [{count}], one per prediction, got {list(scores.shape)}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"rpcnn.metrics: {name} must be finite, got {scores[~np.isfinite(scores)][0]}")
    return scores


def as_boxes(name: str, boxes: Any) -> np.ndarray:
    """Convert boxes to float64 [N, 4]. Raises ValueError if the shape differs or a coordinate is not finite."""
    boxes = as_array(boxes).astype(np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"rpcnn.metrics: {name} must have shape [N, 4], got {list(boxes.shape)}")
    if not np.isfinite(boxes).all():
        raise ValueError(f"rpcnn.metrics: {name} must be finite, got {boxes[~np.isfinite(boxes).all(1)][0].tolist()}")
    return boxes


def join_boxes(name: str, images: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Convert the boxes [N, 4] of I images to float64 [ΣN, 4], and where each one's begin, int64 [I + 1] with the end.

    Raises ValueError as :func:`as_boxes`.
    """
    arrays = [as_array(boxes) for boxes in images]
    if not all(a.ndim == 2 and a.shape[1] == 4 for a in arrays):
        arrays = [as_boxes(name, a) for a in arrays]  # which says what is wrong
    joined = np.concatenate([np.empty((0, 4)), *arrays], dtype=np.float64, casting="unsafe")
    return as_boxes(name, joined), np.cumsum([0, *map(len, arrays)])


def join_scores(name: str, images: Sequence, starts: np.ndarray) -> np.ndarray:
    """Convert the scores of I images to float64 [ΣN]; starts: see :func:`join_boxes`.

    Raises ValueError as :func:`as_scores`.
    """
    arrays = [as_array(scores) for scores in images]
    counts = np.diff(starts).tolist()
    if not all(a.shape == (count,) for a, count in zip(arrays, counts, strict=True)):
        arrays = [as_scores(name, a, count) for a, count in zip(arrays, counts, strict=True)]
    joined = np.concatenate([np.empty(0), *arrays], dtype=np.float64, casting="unsafe")
    return as_scores(name, joined, len(joined))
