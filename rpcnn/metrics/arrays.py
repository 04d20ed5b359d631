"""Converts scores and boxes to float64 arrays; errors name the argument."""

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
