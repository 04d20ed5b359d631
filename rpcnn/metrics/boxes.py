"""AP^bbox: COCO's average precision of person boxes, by pycocotools, in percent."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .parsing import as_scores
from .people import as_array

MOST_BOXES = 100  # per image, the best
ALL_AREAS = [0, 1e10]


@dataclass(frozen=True)
class BoxMatches:
    """What AP^bbox needs to know about one image: N predicted boxes, at most 100, at COCO's 10 thresholds of IoU."""

    scores: np.ndarray
    """float64 [N], descending."""
    matched: np.ndarray
    """bool [10, N]: the box took a true box that no better box had taken."""
    ignored: np.ndarray
    """bool [10, N]: neither right nor wrong, as its area is out of COCO's range (negative or above 10^10)."""
    num_true: int
    """True boxes, less those out of that range."""


def match_boxes(boxes, scores, true_boxes) -> BoxMatches:
    """Matches the predicted boxes of one image with its true boxes, as COCO does.

    Args:
        boxes: [N, 4], x1 y1 x2 y2 in pixels, width = x2 − x1.
        scores: [N]; of equal ones the first is the better.
        true_boxes: [G, 4]; as parsing data sets have no box annotations, these enclose the person masks.

    Raises:
        ValueError: a shape does not fit, or a number is not finite.
    """
    found, wanted = _to_xywh("boxes", boxes), _to_xywh("true_boxes", true_boxes)
    scores = as_scores("scores", scores, len(found))
    evaluation = _evaluation_of(num_images=1)
    key = (1, 1)  # of the one image and the one category
    evaluation._gts[key] = [box | dict(iscrowd=0, ignore=0) for box in _to_coco(wanted)]
    evaluation._dts[key] = [
        box | dict(score=score) for box, score in zip(_to_coco(found), scores.tolist(), strict=True)
    ]
    evaluation.ious = {key: evaluation.computeIoU(*key)}
    image = evaluation.evaluateImg(*key, ALL_AREAS, MOST_BOXES)
    if image is None:  # no box at all
        nothing = np.zeros((len(evaluation.params.iouThrs), 0), bool)
        return BoxMatches(np.zeros(0), nothing, nothing, 0)
    return BoxMatches(
        np.array(image["dtScores"], np.float64),
        image["dtMatches"] > 0,
        image["dtIgnore"],
        int((image["gtIgnore"] == 0).sum()),
    )


def pool_ap_bbox(matches: Sequence[BoxMatches]) -> float:
    """:func:`ap_bbox` from what :func:`match_boxes` gives for each image."""
    if not any(image.num_true for image in matches):
        return float("nan")
    evaluation = _evaluation_of(len(matches))
    evaluation._paramsEval = evaluation.params
    evaluation.evalImgs = [
        dict(dtScores=m.scores, dtMatches=m.matched, dtIgnore=m.ignored, gtIgnore=np.zeros(m.num_true)) for m in matches
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return 100 * float(evaluation.eval["precision"].mean())  # [IoU, recall, 1 class, 1 area, 1 limit]


def ap_bbox(boxes: Sequence, scores: Sequence, true_boxes: Sequence) -> float:
    """COCO AP: mean over IoU 0.50, 0.55, …, 0.95, at most 100 boxes per image, one class.

    Args:
        boxes, scores, true_boxes: per image what :func:`match_boxes` takes.

    Returns:
        Percent; NaN where there is no true box, 0 where there is one and no prediction.

    Raises:
        ValueError: as :func:`match_boxes`.
    """
    return pool_ap_bbox([match_boxes(*image) for image in zip(boxes, scores, true_boxes, strict=True)])


def _evaluation_of(num_images: int):
    """pycocotools' evaluation of images 1 … num_images without a truth: image by image we give it the boxes."""
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(iouType="bbox")
    evaluation.params.imgIds, evaluation.params.catIds = list(range(1, num_images + 1)), [1]
    # Of its twelve numbers we ask for one: a fifth of the time without small, medium and large boxes.
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [ALL_AREAS], ["all"]
    evaluation.params.maxDets = [MOST_BOXES]
    return evaluation


def _to_coco(boxes: np.ndarray) -> list[dict]:
    """Boxes x y w h as COCO's entries, numbered from 1: its matching takes id 0 for no match."""
    return [dict(id=i, bbox=[x, y, w, h], area=w * h) for i, (x, y, w, h) in enumerate(boxes.tolist(), start=1)]


def as_boxes(name: str, boxes) -> np.ndarray:
    """Boxes as float64 [N, 4]. Raises ValueError for another shape, and where a number is not finite."""
    boxes = as_array(boxes).astype(np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"rpcnn.metrics: {name} must have shape [N, 4], got {list(boxes.shape)}")
    if not np.isfinite(boxes).all():
        raise ValueError(f"rpcnn.metrics: {name} must be finite, got {boxes[~np.isfinite(boxes).all(1)][0].tolist()}")
    return boxes


def _to_xywh(name: str, boxes) -> np.ndarray:
    boxes = as_boxes(name, boxes)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
