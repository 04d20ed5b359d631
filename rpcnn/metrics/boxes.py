"""AP^bbox: COCO's average precision of person boxes, by pycocotools, in percent."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .arrays import as_boxes, as_scores
from .counting import take_greedily
from .image_pair import ImagePair
from .metric import Metric, Settings

BOX_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's IoU thresholds, bit-equal."""
MOST_BOXES = 100  # per image, those with the best scores


class BoxMetrics(Metric):
    """Of boxes: AP^bbox.

    COCO's AP of the person boxes: IoU 0.50 … 0.95, at most 100 boxes an image. pycocotools computes the IoU and the
    average; an image's boxes are matched where the image is read, and the tests compare with pycocotools' own
    evaluation of a whole set. True boxes enclose the true people's maps.
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
    """The box matches of one image, for AP^bbox: N predicted boxes, at most 100, at COCO's 10 IoU thresholds."""

    scores: np.ndarray
    """float64 [N], descending."""
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
    from pycocotools import mask

    predicted, true = _to_xywh("boxes", boxes), _to_xywh("true_boxes", true_boxes)
    true = true[_area(true) >= 0][::-1]
    scores = as_scores("scores", scores, len(predicted))
    best = np.argsort(-scores, kind="stable")[:MOST_BOXES]
    predicted, scores = predicted[best], scores[best]
    iou = np.reshape(mask.iou(predicted, true, [0] * len(true)), (len(predicted), len(true), 1))
    below = np.nextafter(BOX_THRESHOLDS, 0)  # IoU > below is IoU >= threshold
    matched = take_greedily(iou, np.ones((len(true), 1), bool), np.arange(len(predicted)), below)[..., 0]
    return BoxMatches(scores, matched, ~matched & (_area(predicted) < 0), len(true))


def pool_ap_bbox(matches: Sequence[BoxMatches]) -> float:
    """Compute :func:`ap_bbox` from the result of :func:`match_coco_boxes` for each image."""
    from pycocotools.cocoeval import COCOeval

    if not any(image.num_true for image in matches):
        return float("nan")
    evaluation = COCOeval(iouType="bbox")
    evaluation.params.imgIds, evaluation.params.catIds = list(range(len(matches))), [1]
    evaluation.params.areaRng, evaluation.params.maxDets = [[0, 1e10]], [MOST_BOXES]
    evaluation._paramsEval = evaluation.params
    evaluation.evalImgs = [
        dict(dtScores=m.scores, dtMatches=m.matched, dtIgnore=m.ignored, gtIgnore=np.zeros(m.num_true)) for m in matches
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return 100 * float(evaluation.eval["precision"].mean())  # [IoU, recall, 1 class, 1 area, 1 limit]


def ap_bbox(boxes: Sequence, scores: Sequence, true_boxes: Sequence) -> float:
    """Compute COCO's AP: mean over IoU thresholds 0.50, 0.55, …, 0.95, at most 100 boxes per image, one class.

    Args:
        boxes, scores, true_boxes: one entry per image, see :func:`match_coco_boxes`.

    Returns:
        Percent; NaN if there is no true box, 0 if there are true boxes but no predictions.

    Raises:
        ValueError: as :func:`match_coco_boxes`.
    """
    return pool_ap_bbox([match_coco_boxes(*image) for image in zip(boxes, scores, true_boxes, strict=True)])


def _to_xywh(name: str, boxes: ArrayLike) -> np.ndarray:
    boxes = as_boxes(name, boxes)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _area(xywh: np.ndarray) -> np.ndarray:
    return xywh[:, 2] * xywh[:, 3]
