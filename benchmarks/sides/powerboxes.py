"""NMS of powerboxes, in float32, with and without an R-tree."""

import numpy as np
import powerboxes

from . import Timed

THREADS = "1; its NMS has no more"


def _nms(function, arrays: dict) -> Timed:
    boxes, scores, threshold = arrays["boxes"], arrays["scores"].astype(float), float(arrays["threshold"])
    return Timed(lambda: function(boxes, scores, threshold, 0.0), lambda kept: kept.astype(np.int64), THREADS)


def nms(arrays: dict, threads: int) -> Timed:
    """All pairs."""
    return _nms(powerboxes.nms, arrays)


def rtree_nms(arrays: dict, threads: int) -> Timed:
    """With an R-tree."""
    return _nms(powerboxes.rtree_nms, arrays)
