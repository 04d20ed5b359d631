"""Boxes of classes of equal size as a batch, one image for each class: what ONNX's NonMaxSuppression takes."""

import numpy as np


def batch(arrays: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay out boxes [B, N, 4] and scores [B, 1, N], and where each came from, int64 [B, N]; B = 1 without classes.

    Corners are ordered y1 x1 y2 x2, as ONNX has them.
    """
    classes = arrays.get("classes", np.zeros(len(arrays["boxes"]), np.int64))
    groups = classes.max() + 1
    source = np.argsort(classes, kind="stable").reshape(groups, -1)
    boxes = np.ascontiguousarray(arrays["boxes"][source][..., [1, 0, 3, 2]])
    return boxes, np.ascontiguousarray(arrays["scores"][source][:, None]), source


def read(rows: np.ndarray, source: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Turn rows (image, class, box), −1 where unused, into indices of boxes by falling score."""
    rows = rows[rows[:, 0] >= 0]
    kept = source[rows[:, 0], rows[:, 2]]
    return kept[np.argsort(-scores[kept], kind="stable")]
