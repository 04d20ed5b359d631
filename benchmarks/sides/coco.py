"""What the libraries with pycocotools' interface share: COCO's dictionaries, and how AP^bbox is asked for."""

import numpy as np

from . import Timed


def truth(arrays: dict) -> dict:
    """The true boxes as the dictionary of a COCO file: one class, images numbered from 0."""
    corners = arrays["true_boxes"].astype(float)
    size = corners[:, 2:] - corners[:, :2]
    boxes, areas = np.concatenate([corners[:, :2], size], 1).tolist(), size.prod(1).tolist()
    fields = zip(arrays["true_image"].tolist(), boxes, areas, strict=True)
    return {
        "images": [{"id": i} for i in range(int(arrays["images"]))],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 1, "bbox": box, "area": area, "iscrowd": 0}
            for n, (image, box, area) in enumerate(fields, 1)
        ],
    }


def predictions(arrays: dict) -> np.ndarray:
    """The predicted boxes as rows (image, x, y, width, height, score, class), which loadRes takes."""
    corners = arrays["boxes"].astype(float)
    columns = arrays["image"], corners[:, :2], corners[:, 2:] - corners[:, :2], arrays["scores"]
    return np.column_stack([*columns, np.ones(len(corners))])


def whole_range(evaluation) -> None:
    """Ask for what AP^bbox is made of: all sizes of boxes together, and at most 100 of an image."""
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [100]


def average_precision(evaluation) -> np.ndarray:
    """AP^bbox of an evaluation that has accumulated, in 0..1."""
    precision = np.asarray(evaluation.eval["precision"])
    return precision[precision > -1].mean(keepdims=True)


def timed(coco, make, arrays: dict, loaded: bool, threads: str) -> Timed:
    """Time an evaluation.

    Args:
        coco: the library's COCO, which takes a dictionary and has loadRes.
        make: from the true and the predicted COCO to an evaluation.
        arrays: the case's arrays.
        loaded: whether both COCOs are made beforehand; else their making from arrays in memory is timed too.
        threads: see Timed.
    """
    known, rows = truth(arrays), predictions(arrays)

    def load():
        true = coco(known)
        return true, true.loadRes(rows)

    before = load() if loaded else None

    def run():
        evaluation = make(*(before or load()))
        whole_range(evaluation)
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation

    return Timed(run, average_precision, threads)
