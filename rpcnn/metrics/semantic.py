"""Semantic metrics of whole label maps: mIoU, pixel accuracy, mean accuracy (Table 6), in percent.

They are computed from one confusion matrix, int64 [K, K] with rows for the truth and columns for the prediction, summed
over all images of a set (:func:`rpcnn.metrics.confusion_matrix`), images without detections included. The background is
a class like the others. What is undefined is NaN: everything where no pixel counted.
"""

import numpy as np


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Per class TP / (truth + prediction − TP): float64 [K] in percent, NaN where the class occurs in neither."""
    intersection = np.diag(confusion)
    return 100 * divide(intersection, confusion.sum(1) + confusion.sum(0) - intersection)


def miou(confusion: np.ndarray, absent: str = "skip") -> float:
    """Mean of :func:`class_iou` over the classes.

    absent: "skip" passes over classes that occur neither in the truth nor in the prediction (released code); "zero"
    counts them as 0, as some evaluators do, which is lower on subsets that miss a class.
    """
    if absent not in ("skip", "zero"):
        raise ValueError(f"miou: absent must be 'skip' or 'zero', got {absent!r}")
    iou = class_iou(confusion)
    if absent == "zero" and confusion.any():
        iou = np.nan_to_num(iou, nan=0.0)
    return mean_defined(iou)


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of the pixels that are right."""
    return 100 * float(divide(np.trace(confusion), confusion.sum()))


def mean_accuracy(confusion: np.ndarray) -> float:
    """Mean over the classes that occur in the truth of the share of their pixels that are right."""
    return mean_defined(100 * divide(np.diag(confusion), confusion.sum(1)))


def divide(counts, totals) -> np.ndarray:
    """counts / totals in float64, NaN where a total is 0."""
    counts, totals = np.asarray(counts), np.asarray(totals)
    return np.divide(counts, totals, out=np.full(totals.shape, np.nan), where=totals > 0)


def mean_defined(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN where all is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
