"""Semantic metrics of whole label maps: mIoU, pixel accuracy, mean accuracy (Table 6), IoU per class, in percent.

They are computed from one confusion matrix, int64 [K, K] with rows for the truth and columns for the prediction, summed
over all images (:func:`rpcnn.metrics.confusion_matrix`). An undefined metric is NaN; without any counted pixel all are.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rpcnn.labels import LabelSet

from .image_pair import ImagePair
from .metric import Metric, Settings, format_percent


class ConfusionMetric(Metric):
    """A metric of the confusion matrix of all images."""

    additive = True

    def measure(self, image: ImagePair, settings: Settings) -> np.ndarray:
        """Return the image's confusion matrix, int64 [K, K]; zeros if `settings.skip_empty` leaves it out."""
        left_out = settings.skip_empty and not len(image.person_maps)
        return np.zeros_like(image.confusion) if left_out else image.confusion

    def total(self, counts: np.ndarray | int, settings: Settings) -> np.ndarray:
        """Convert the evaluator's sum, which is 0 before the first image, to int64 [K, K]."""
        return np.zeros((settings.num_classes, settings.num_classes), np.int64) + counts


class SemanticMetrics(ConfusionMetric):
    """Of label maps: mIoU, pixel accuracy, mean accuracy.

    M_ij counts the pixels of all images with truth i and prediction j.

    - IoU of class c = M_cc / (Σ_j M_cj + Σ_i M_ic − M_cc); **mIoU** is the mean over the classes that occur
      in the truth or the prediction, the background included. `absent="zero"` counts the others as 0, as some
      evaluators do.
    - **Pixel accuracy** = Σ_c M_cc / ΣM. **Mean accuracy** = mean over the classes in the truth of
      M_cc / Σ_j M_cj.
    - Images without a predicted person count. `skip_empty=True` leaves them out, as the released code of RP R-CNN does
      by writing no file for them; that makes its mIoU a little better.
    """

    columns = (("mIoU", "miou"), ("Pixel acc.", "pixel_accuracy"), ("Mean acc.", "mean_accuracy"))

    def summarize(self, counts: Any, settings: Settings) -> dict:
        """Compute miou, pixel_accuracy and mean_accuracy."""
        confusion = self.total(counts, settings)
        return {
            "miou": miou(confusion, settings.absent),
            "pixel_accuracy": pixel_accuracy(confusion),
            "mean_accuracy": mean_accuracy(confusion),
        }


class ClassIoU(ConfusionMetric):
    """Of each class: IoU.

    A list with an entry per class: what mIoU is the mean of.
    """

    def summarize(self, counts: Any, settings: Settings) -> dict:
        """Return nothing; the list is in :meth:`details`."""
        return {}

    def details(self, counts: Any, settings: Settings) -> dict:
        """Compute iou, a list with an entry per class."""
        return {"iou": class_iou(self.total(counts, settings)).tolist()}

    def lines(self, results: dict, labels: LabelSet) -> list[str]:
        """Format the class names with their IoU, in column order."""
        width = max(len(name) for name in labels.names) + 2
        pairs = zip(labels.names, results["iou"], strict=True)
        cells = [f"{name:<{width}}{format_percent(iou, 1):>5}" for name, iou in pairs]
        per_line = max(110 // (width + 8), 1)
        rows = -(-len(cells) // per_line)
        return ["IoU per class", *("   ".join(cells[row::rows]) for row in range(rows))]


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Compute TP / (truth + prediction − TP) per class: float64 [K] in percent, NaN for a class in neither."""
    intersection = np.diag(confusion)
    return 100 * divide(intersection, confusion.sum(1) + confusion.sum(0) - intersection)


def miou(confusion: np.ndarray, absent: str = "skip") -> float:
    """Compute the mean of :func:`class_iou` over the classes, in percent.

    Args:
        confusion: int64 [K, K].
        absent: "skip" leaves out classes that occur neither in the truth nor in the prediction (released code); "zero"
            counts them as 0, as some evaluators do, which gives lower values on subsets that lack a class.

    Raises:
        ValueError: `absent` is neither "skip" nor "zero".
    """
    check_absent(absent)
    iou = class_iou(confusion)
    if absent == "zero" and confusion.any():
        iou = np.nan_to_num(iou, nan=0.0)
    return mean_defined(iou)


def check_absent(absent: str) -> None:
    """Raise ValueError unless `absent` is "skip" or "zero"."""
    if absent not in ("skip", "zero"):
        raise ValueError(f"miou: absent must be 'skip' or 'zero', got {absent!r}")


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Compute the share of pixels with the right label, in percent."""
    return 100 * float(divide(np.trace(confusion), confusion.sum()))


def mean_accuracy(confusion: np.ndarray) -> float:
    """Compute the share of each class's true pixels with the right label, averaged over the classes that occur in the
    truth, in percent."""
    return mean_defined(100 * divide(np.diag(confusion), confusion.sum(1)))


def divide(counts: ArrayLike, totals: ArrayLike) -> np.ndarray:
    """Compute counts / totals in float64, with NaN where a total is 0."""
    counts, totals = np.asarray(counts), np.asarray(totals)
    return np.divide(counts, totals, out=np.full(totals.shape, np.nan), where=totals > 0)


def mean_defined(values: np.ndarray) -> float:
    """Compute the mean of the values that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
