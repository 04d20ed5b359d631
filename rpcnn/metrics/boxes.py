"""AP^bbox: COCO's average precision of person boxes, by pycocotools, in percent."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from .parsing import as_scores
from .people import as_array


def ap_bbox(boxes: Sequence, scores: Sequence, true_boxes: Sequence) -> float:
    """COCO AP: mean over IoU 0.50, 0.55, …, 0.95, at most 100 boxes per image, one class.

    Args:
        boxes: per image [N, 4], x1 y1 x2 y2 in pixels, width = x2 − x1.
        scores: per image [N].
        true_boxes: per image [G, 4]; as parsing data sets have no box annotations, these enclose the person masks.

    Returns:
        Percent; NaN where there is no true box, 0 where there is one and no prediction.

    Raises:
        ValueError: a shape does not fit, or a number is not finite.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations: list[dict] = []
    predictions: list[dict] = []
    for image, (found, confidences, wanted) in enumerate(zip(boxes, scores, true_boxes, strict=True), start=1):
        found, wanted = _to_xywh("boxes", found), _to_xywh("true_boxes", wanted)
        for score, box in zip(as_scores("scores", confidences, len(found)), found, strict=True):
            predictions.append(dict(image_id=image, category_id=1, bbox=box.tolist(), score=float(score)))
        for box in wanted:
            shape = dict(bbox=box.tolist(), area=float(box[2] * box[3]), iscrowd=0)
            annotations.append(dict(id=len(annotations) + 1, image_id=image, category_id=1) | shape)
    if not annotations:
        return float("nan")
    if not predictions:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(1, len(boxes) + 1)],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(predictions), "bbox")
        # Of its twelve numbers we ask for one: a fifth of the time without small, medium and large boxes.
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return 100 * float(evaluation.eval["precision"].mean())  # [IoU, recall, 1 class, 1 area, 1 limit]


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
