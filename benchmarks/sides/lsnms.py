"""NMS of lsnms, in its default, Rust with an R-tree."""

import numpy as np
from lsnms import nms as rtree_nms

from . import Timed

THREADS = "1; it has no more"


def _nms(arrays: dict, classes: np.ndarray | None) -> Timed:
    boxes, scores, threshold = arrays["boxes"], arrays["scores"], float(arrays["threshold"])
    return Timed(lambda: rtree_nms(boxes, scores, threshold, class_ids=classes), np.asarray, THREADS)


def nms(arrays: dict, threads: int) -> Timed:
    """Plain NMS."""
    return _nms(arrays, None)


def batched_nms(arrays: dict, threads: int) -> Timed:
    """NMS within every class, by offsets."""
    return _nms(arrays, arrays["classes"])
