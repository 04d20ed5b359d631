"""AP^bbox: COCO's box average precision of people, by pycocotools."""

import contextlib
import io

import numpy as np


def ap_bbox(images: list[dict]) -> float:
    """COCO AP (IoU 0.50:0.95, at most 100 boxes per image) in percent.

    Args:
        images: per image a dict of boxes [n, 4] x1 y1 x2 y2 in pixels, scores [n], and true_boxes [m, 4].

    Returns:
        Percent; 0 where there is no true box or no prediction.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, predictions = [], []
    for number, image in enumerate(images, start=1):
        for box in np.asarray(image["true_boxes"], dtype=float).reshape(-1, 4):
            width, height = box[2:] - box[:2]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=number, category_id=1, iscrowd=0, area=width * height)
                | dict(bbox=[box[0], box[1], width, height])
            )
        boxes = np.asarray(image["boxes"], dtype=float).reshape(-1, 4)
        for box, score in zip(boxes, np.asarray(image["scores"], dtype=float), strict=True):
            bbox = [box[0], box[1], *(box[2:] - box[:2])]
            predictions.append(dict(image_id=number, category_id=1, bbox=bbox, score=float(score)))
    if not annotations or not predictions:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(1, len(images) + 1)],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(predictions), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0])
