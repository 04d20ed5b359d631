"""AP^bbox: COCO's average precision of person boxes, in percent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from . import counting
from .arrays import join_boxes, join_scores
from .image_pair import ImagePair
from .metric import Metric, Settings

BOX_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's IoU thresholds, bit-equal."""
MOST_BOXES = 100  # per image, those with the best scores
RECALLS = np.linspace(0, 1, 101)
"""Where COCO samples the precision, bit-equal."""


class BoxMetrics(Metric):
    """Of boxes: AP^bbox.

    COCO's AP of the person boxes: IoU 0.50 … 0.95, at most 100 boxes an image. An image's boxes are matched where the
    image is read; the tests compare with pycocotools' evaluation of a whole set. True boxes enclose the true people's
    maps.
    """

    columns = (("AP^bbox", "ap_bbox"),)
    needs_people = ("ap_bbox",)

    def measure(self, image: ImagePair, settings: Settings) -> "BoxMatches":
        """Match one image's predicted boxes with its true boxes."""
        return match_coco_boxes(image.boxes, image.box_scores, image.true_boxes)

    def summarize(self, counts: "list[BoxMatches]", settings: Settings) -> dict:
        """Compute ap_bbox."""
        return {"ap_bbox": pool_ap_bbox(counts)}


@dataclass(frozen=True)
class BoxMatches:
    """The box matches of images, for AP^bbox: N predicted boxes, at most 100 an image, at COCO's 10 IoU thresholds."""

    scores: np.ndarray
    """float64 [N], image after image, descending within each."""
    matched: np.ndarray
    """bool [10, N]: the box was matched with a true box, so it is a true positive."""
    ignored: np.ndarray
    """bool [10, N]: the box is unmatched and has a negative area, so it is neither right nor wrong."""
    num_true: int
    """Number of true boxes."""


def match_coco_boxes(boxes: ArrayLike, scores: ArrayLike, true_boxes: ArrayLike) -> BoxMatches:
    """Match the predicted boxes of one image with its true boxes, as COCO does.

    In order of score, each box is matched with the unmatched true box that it overlaps most (of equal ones the last),
    if their IoU is at least the threshold. pycocotools' own loop over thresholds and pairs took a sixth of the time to
    evaluate an image.

    Args:
        boxes: [N, 4], x1 y1 x2 y2 in pixels, width = x2 − x1.
        scores: [N]; of equal scores the first ranks higher.
        true_boxes: [G, 4]. Parsing data sets have no box annotations, so these enclose the person masks.

    Returns:
        The matches of at most 100 boxes, in descending order of score.

    Raises:
        ValueError: an argument has the wrong shape or a value that is not finite.
    """
    return _match_images([boxes], [scores], [true_boxes])


def pool_ap_bbox(matches: Sequence[BoxMatches]) -> float:
    """Compute :func:`ap_bbox` from the result of :func:`match_coco_boxes` for each image."""
    num_true = sum(image.num_true for image in matches)
    if not num_true:
        return float("nan")
    order = np.argsort(-np.concatenate([image.scores for image in matches]), kind="stable")
    right, ignored = (
        np.concatenate([getattr(m, name) for m in matches], 1)[:, order] for name in ("matched", "ignored")
    )
    return 100 * float(np.mean([_average_precision(*both, num_true) for both in zip(right, ignored, strict=True)]))


def _average_precision(right: np.ndarray, ignored: np.ndarray, num_true: int) -> float:
    """The mean of the precision at COCO's recalls; right and ignored: bool [N], best box first.

    Computed where a box is right, since only there the recall rises, and the precision is lower until the next one.
    """
    ranks = np.flatnonzero(right)
    found, considered = np.arange(1, len(ranks) + 1), ranks + 1 - np.searchsorted(np.flatnonzero(ignored), ranks)
    precision = found / (considered + np.spacing(1))
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    places = np.searchsorted(found / num_true, RECALLS)
    return float(np.append(best_beyond, 0.0)[places].mean())  # 0 where a recall is not reached


def ap_bbox(boxes: Sequence, scores: Sequence, true_boxes: Sequence) -> float:
    """Compute COCO's AP: mean over IoU thresholds 0.50, 0.55, …, 0.95, at most 100 boxes per image, one class.

    Args:
        boxes, scores, true_boxes: one entry per image, see :func:`match_coco_boxes`.

    Returns:
        Percent; NaN if there is no true box, 0 if there are true boxes but no predictions.

    Raises:
        ValueError: as :func:`match_coco_boxes`.
    """
    return pool_ap_bbox([_match_images(boxes, scores, true_boxes)])


def _match_images(boxes: Sequence, scores: Sequence, true_boxes: Sequence) -> BoxMatches:
    """Match the boxes of some images, which :func:`match_coco_boxes` describes, within each of them."""
    predicted, starts = join_boxes("boxes", boxes)
    true, true_starts = join_boxes("true_boxes", true_boxes)
    confidences = join_scores("scores", scores, starts)
    if len(starts) != len(true_starts):
        raise ValueError(f"rpcnn.metrics: true_boxes must be of {len(starts) - 1} images, got {len(true_starts) - 1}")
    match_all = counting._metrics.coco_boxes if counting._metrics else _match_numpy
    below = np.nextafter(BOX_THRESHOLDS, 0)  # IoU > below is IoU >= threshold
    order, matched, num_true = match_all(predicted, confidences, starts, true, true_starts, below, MOST_BOXES)
    ignored = ~matched & (_area(predicted[order]) < 0)
    return BoxMatches(confidences[order], matched, ignored, num_true)


def _match_numpy(
    boxes: np.ndarray,
    scores: np.ndarray,
    starts: np.ndarray,
    true_boxes: np.ndarray,
    true_starts: np.ndarray,
    thresholds: np.ndarray,
    most: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The best boxes of all images, int64 [M], which of them match, bool [T, M], and the number of true boxes."""
    from pycocotools import mask

    order, matched, num_true = [np.empty(0, np.int64)], [np.empty((len(thresholds), 0), bool)], 0
    for first, last, true_first, true_last in zip(
        starts[:-1], starts[1:], true_starts[:-1], true_starts[1:], strict=True
    ):
        expected = true_boxes[true_first:true_last]
        expected = _to_xywh(expected[_area(expected) >= 0][::-1])
        best = first + np.argsort(-scores[first:last], kind="stable")[:most]
        iou = mask.iou(_to_xywh(boxes[best]), expected, [0] * len(expected))
        iou = np.reshape(iou, (len(best), len(expected), 1))
        occurs = np.ones((len(expected), 1), bool)
        order.append(best)
        matched.append(counting.take_greedily(iou, occurs, np.arange(len(best)), thresholds)[..., 0])
        num_true += len(expected)
    return np.concatenate(order), np.concatenate(matched, 1), num_true


def _to_xywh(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _area(corners: np.ndarray) -> np.ndarray:
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
