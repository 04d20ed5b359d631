"""Counts pixels and matches instances for the evaluator, with rpcnn._metrics if it is compiled, else with numpy.

N predicted people, G true people, K classes with the background, H × W pixels. Pixels whose true label is K or more
(255) are ignored. Arrays may be numpy arrays or tensors; labels may have any integer dtype, in 0..255.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rpcnn.labelmaps.boxes import enclosing_box
from rpcnn.labelmaps.people import NumberedPersonMaps, PersonMapsLike, as_labels

try:
    from rpcnn import _metrics  # type: ignore[attr-defined]
except ImportError:  # built with RPCNN_BUILD=none, or not built
    _metrics = None


def confusion_matrix(truth: ArrayLike, prediction: ArrayLike, num_classes: int) -> np.ndarray:
    """Count the pixels of every pair of a true and a predicted label.

    Args:
        truth: true labels, any shape; labels of K or more are ignored.
        prediction: predicted labels below K, of the same shape.
        num_classes: K, 1..256.

    Returns:
        int64 [K, K]: entry (i, j) is the number of pixels with true label i and predicted label j.

    Raises:
        ValueError: an array does not hold labels, the shapes differ, or a predicted label is K or more.
    """
    truth = as_labels("confusion_matrix: truth", truth)
    prediction = as_labels("confusion_matrix: prediction", prediction)
    count = _metrics.confusion_matrix if _metrics else confusion_matrix_numpy
    return count(truth, prediction, num_classes)


def person_counts(
    person_maps: PersonMapsLike, true_person_maps: PersonMapsLike, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the pixels for the IoU of every class between every predicted and every true person.

    Args:
        person_maps: labels [N, H, W] below K, one map per predicted person, which may overlap; or
            :class:`NumberedPersonMaps`.
        true_person_maps: labels [G, H, W], or :class:`NumberedPersonMaps`.
        num_classes: K, 1..256.

    Returns:
        Three int64 arrays, with IoU = intersection / (predicted + truth − intersection):

        - intersection [N, G, K]: pixels that have class k in both maps.
        - predicted [N, G, K]: pixels of class k in the predicted map, without those that true map g ignores.
        - truth [G, K]: pixels of class k in the true map.

    Raises:
        ValueError: an array does not hold labels, the sizes differ, or a predicted label is K or more.
    """
    prepare = _given if _metrics else as_labels
    person_maps = prepare("person_counts: person_maps", person_maps)
    true_person_maps = prepare("person_counts: true_person_maps", true_person_maps)
    if _metrics:
        return _metrics.person_counts(person_maps, true_person_maps, num_classes, _threads())
    return person_counts_numpy(person_maps, true_person_maps, num_classes)


def image_counts(
    label_map: ArrayLike,
    person_maps: PersonMapsLike,
    true_label_map: ArrayLike,
    true_person_maps: PersonMapsLike,
    num_classes: int,
) -> tuple[np.ndarray, ...]:
    """Compute both :func:`confusion_matrix` of the label maps and :func:`person_counts`.

    If the predicted and the true people are :class:`NumberedPersonMaps` of these label maps, each pixel is read once.

    Args:
        label_map, true_label_map: labels [H, W] of the whole image; predicted ones below K.
        person_maps, true_person_maps, num_classes: see :func:`person_counts`.

    Returns:
        (confusion, intersection, predicted, truth).

    Raises:
        ValueError: as :func:`confusion_matrix` and :func:`person_counts`.
    """
    if (
        _metrics
        and isinstance(person_maps, NumberedPersonMaps)
        and isinstance(true_person_maps, NumberedPersonMaps)
        and person_maps.label_map is label_map
        and true_person_maps.label_map is true_label_map
    ):
        predicted, truth = _given("person_maps", person_maps), _given("true_person_maps", true_person_maps)
        counts = _metrics.image_counts(predicted, truth, num_classes)
        if counts is not None:
            return counts
    confusion = confusion_matrix(true_label_map, label_map, num_classes)
    return confusion, *person_counts(person_maps, true_person_maps, num_classes)


def take_greedily(
    iou: np.ndarray, occurs: np.ndarray, order: np.ndarray, thresholds: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Which predictions take a true instance, bool [T, N, K].

    In the given order each prediction takes, for each class and threshold, the unmatched true instance with the largest
    IoU (of equal ones the first), if that exceeds the threshold.

    Args:
        iou: float64 [N, G, K], NaN where undefined.
        occurs: bool [G, K], the true instances.
        order: int64 [N].
        thresholds: T numbers, ascending.
    """
    if _metrics:
        return _metrics.take_greedily(iou, occurs, order, thresholds)
    count, _, classes = iou.shape
    limits = np.array(thresholds)[:, None]
    matched = np.zeros((len(limits), count, classes), bool)
    if not len(occurs):
        return matched
    iou = np.where(occurs & (iou > limits[0]), iou, 0.0)  # NaN and IoUs below the lowest threshold never match
    taken = np.zeros((len(limits), *occurs.shape), bool)  # [T, G, K]
    for n in order:
        overlap = np.where(taken, 0.0, iou[n])
        best = overlap.max(1)  # [T, K]
        matched[:, n] = best > limits
        t, k = np.nonzero(matched[:, n])
        taken[t, overlap[t, :, k].argmax(1), k] = True
    return matched


def confusion_matrix_numpy(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """:func:`confusion_matrix` of uint8 arrays, in numpy."""
    _check("confusion_matrix", num_classes, truth=truth, prediction=prediction)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"confusion_matrix: prediction must have the shape of truth, {list(truth.shape)}, "
            f"got {list(prediction.shape)}"
        )
    _check_prediction("confusion_matrix", "prediction", prediction, num_classes)
    return _joint_histogram(truth, prediction, num_classes)


def person_counts_numpy(
    person_maps: np.ndarray, true_person_maps: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`person_counts` of uint8 arrays, in numpy.

    Only pixels inside a prediction's bounding box are read. Outside of it the prediction is background, so the true
    person's other pixels are added to column 0 of the confusion matrix.
    """
    _check("person_counts", num_classes, person_maps=person_maps, true_person_maps=true_person_maps)
    for name, letter, maps in (("person_maps", "N", person_maps), ("true_person_maps", "G", true_person_maps)):
        if maps.ndim != 3:
            raise ValueError(f"person_counts: {name} must have shape [{letter}, H, W], got {list(maps.shape)}")
    if person_maps.shape[1:] != true_person_maps.shape[1:]:
        raise ValueError(
            "person_counts: person_maps and true_person_maps must have one height and width, "
            f"got {list(person_maps.shape)} and {list(true_person_maps.shape)}"
        )
    _check_prediction("person_counts", "person_maps", person_maps, num_classes)
    pairs = (len(person_maps), len(true_person_maps), num_classes)
    intersection, predicted = np.zeros(pairs, np.int64), np.zeros(pairs, np.int64)
    truth = np.zeros(pairs[1:], np.int64)
    for g, true_person in enumerate(true_person_maps):
        truth[g] = np.bincount(true_person.ravel(), minlength=256)[:num_classes]
    for n, person in enumerate(person_maps):
        x1, y1, x2, y2 = map(int, enclosing_box(person))
        box = np.s_[y1:y2, x1:x2]
        for g, true_person in enumerate(true_person_maps):
            confusion = _joint_histogram(true_person[box], person[box], num_classes)
            confusion[:, 0] += truth[g] - confusion.sum(1)
            intersection[n, g], predicted[n, g] = np.diag(confusion), confusion.sum(0)
    return intersection, predicted, truth


def _given(name: str, person_maps: PersonMapsLike) -> Any:
    """Convert person maps to the arguments of rpcnn._metrics."""
    if isinstance(person_maps, NumberedPersonMaps):
        return person_maps.label_map, person_maps.numbers, person_maps.count
    return as_labels(name, person_maps)


def _joint_histogram(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    pairs = truth.astype(np.int64).ravel() * num_classes + prediction.ravel()
    return np.bincount(pairs, minlength=num_classes**2)[: num_classes**2].reshape(num_classes, num_classes)


def _check(op: str, num_classes: int, **maps: np.ndarray) -> None:
    if not 1 <= num_classes <= 256:
        raise ValueError(f"{op}: num_classes must lie in 1..256, got {num_classes}")
    for name, labels in maps.items():
        if labels.dtype != np.uint8:
            raise ValueError(f"{op}: {name} must be uint8, got {labels.dtype}")


def _check_prediction(op: str, name: str, prediction: np.ndarray, num_classes: int) -> None:
    largest = int(prediction.max(initial=0))
    if largest >= num_classes:
        raise ValueError(f"{op}: {name} must lie in 0..{num_classes - 1}, got {largest}")


def _threads() -> int:
    """Return the number of threads to count with: OMP_NUM_THREADS, which torchrun sets; 0 means all processors."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() else 0
