"""Semantic metrics of the whole label map: mIoU, pixel accuracy, mean accuracy (Table 6)."""

import numpy as np

from .counting import joint_histogram


def confusion_matrix(truth, prediction, num_classes: int) -> np.ndarray:
    """int64 [K, K], rows truth, columns prediction. Pixels whose truth is K or more (255: ignored) do not count.

    Raises:
        ValueError: shapes differ, values are no uint8 labels, or a prediction is K or more on a pixel that counts.
    """
    return joint_histogram(as_labels("truth", truth), as_labels("prediction", prediction), num_classes)


def as_labels(name: str, array) -> np.ndarray:
    """A label array of any integer dtype (tensors too) as uint8. Raises ValueError where a value does not fit."""
    array = np.asarray(array)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iub" or (array.size and (array.min() < 0 or array.max() > 255)):
        raise ValueError(f"metrics: {name} must hold integer labels in 0..255, got {array.dtype}")
    return array.astype(np.uint8)


def semantic_scores(confusion: np.ndarray) -> dict:
    """Percentages from a confusion matrix that was summed over the images of a set.

    Returns:
        miou: mean over classes of TP / (truth + prediction − TP), background included, over the classes that occur in
        truth or prediction; pixel_accuracy: share of pixels that are right; mean_accuracy: mean over the classes that
        occur in the truth of TP / truth; iou: list with one entry per class, None where the class does not occur.
        0 where nothing was counted.
    """
    hits, truth, predicted = np.diag(confusion).astype(float), confusion.sum(1), confusion.sum(0)
    union = truth + predicted - hits
    iou = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    accuracy = np.divide(hits, truth, out=np.full(len(hits), np.nan), where=truth > 0)
    return {
        "miou": _mean_percent(iou),
        "pixel_accuracy": 100 * float(hits.sum() / confusion.sum()) if confusion.any() else 0.0,
        "mean_accuracy": _mean_percent(accuracy),
        "iou": [None if np.isnan(value) else 100 * float(value) for value in iou],
    }


def _mean_percent(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return 100 * float(known.mean()) if len(known) else 0.0
