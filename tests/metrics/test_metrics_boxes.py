"""AP^bbox against values worked out by hand from COCO's definition (101 recall points, IoU 0.50 … 0.95)."""

import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rpcnn.metrics import ap_bbox

BOX, FAR = [10.0, 10.0, 30.0, 50.0], [60.0, 10.0, 80.0, 50.0]
NONE = np.zeros((0, 4))


def test_truth_as_prediction_gives_100():
    assert ap_bbox([[BOX, FAR]], [[0.9, 0.8]], [[BOX, FAR]]) == pytest.approx(100)


def test_one_of_two_people():
    # Precision 1 up to recall 1/2: the recall points 0, 0.01, …, 0.50 are 51 of 101, at every IoU.
    assert ap_bbox([[BOX]], [[0.9]], [[BOX, FAR]]) == pytest.approx(100 * 51 / 101)


def test_ap_is_the_mean_over_the_iou_thresholds():
    # 20 × 40 pixels, of which the prediction has 31 rows of 40: IoU 0.775, right at 0.50, 0.55, …, 0.75: 6 of 10.
    assert ap_bbox([[[10, 10, 30, 41]]], [[0.9]], [[BOX]]) == pytest.approx(60)


def test_a_better_scored_wrong_box_halves_the_precision():
    assert ap_bbox([[FAR, BOX]], [[0.9, 0.8]], [[BOX]]) == pytest.approx(50)
    assert ap_bbox([[FAR, BOX]], [[0.8, 0.9]], [[BOX]]) == pytest.approx(100)


def test_boxes_count_in_their_own_image_only():
    assert ap_bbox([NONE, [BOX]], [[], [0.9]], [[BOX], NONE]) == 0


def test_a_hundred_boxes_per_image_count():
    # 100 far boxes score better than the right one, which is the 101st.
    boxes, scores = [FAR] * 100 + [BOX], [0.9] * 100 + [0.5]
    assert ap_bbox([boxes], [scores], [[BOX]]) == 0
    assert ap_bbox([boxes[1:]], [scores[1:]], [[BOX]]) == pytest.approx(1)


def test_ap_is_0_without_detections_undefined_without_truth():
    assert ap_bbox([NONE], [[]], [[BOX]]) == 0
    assert math.isnan(ap_bbox([[BOX]], [[0.9]], [NONE]))
    assert math.isnan(ap_bbox([], [], []))


def test_equal_overlaps_match_the_last_true_box():
    # The wide box has IoU 0.5 with both; it takes the right one, which the second prediction then lacks.
    left, right, wide = [0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0], [0.0, 0.0, 20.0, 10.0]
    image = np.array([[wide, right]]), [[0.9, 0.8]], np.array([[left, right]])
    assert ap_bbox(*image) == pytest.approx(100 * 51 / 101 * (1 + 9 * 0.5) / 10)
    assert ap_bbox(*image) == pytest.approx(coco_ap(*image), rel=1e-12)


def coco_ap(boxes, scores, true_boxes):
    """AP as pycocotools computes it for the whole set."""
    xywh = lambda box: [*box[:2], *(box[2:] - box[:2])]
    truth = COCO()
    annotations = [(image, xywh(box)) for image, those in enumerate(true_boxes) for box in those]
    truth.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(len(boxes))],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            dict(id=i, image_id=image, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0)
            for i, (image, box) in enumerate(annotations, start=1)
        ],
    }
    truth.createIndex()
    found = [
        dict(image_id=image, category_id=1, bbox=xywh(box), score=score)
        for image, (those, confidences) in enumerate(zip(boxes, scores, strict=True))
        for box, score in zip(those, confidences, strict=True)
    ]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * evaluation.stats[0]


@pytest.mark.parametrize("grid", [1e-9, 10, 50])
@pytest.mark.parametrize("seed", range(4))
def test_image_by_image_equals_pycocotools(core, seed, grid):
    # On a coarse grid boxes coincide, IoUs are equal or exactly a threshold, and areas are 0 or negative.
    random = np.random.default_rng(seed)
    boxes, scores, true_boxes = [], [], []
    for _ in range(25):
        corners = random.uniform(0, 300, (random.integers(0, 6), 2))
        expected = np.concatenate([corners, corners + random.uniform(-10, 200, corners.shape)], axis=1)
        near = expected[random.integers(0, len(expected), 2 * len(expected))] if len(expected) else expected
        far = random.uniform(0, 100, (random.integers(0, 130), 4)) + np.array([0, 0, 100, 100])
        found = np.concatenate([near + random.normal(0, 6, near.shape), far])
        boxes.append(np.round(found / grid) * grid)
        scores.append(random.integers(1, 40, len(found)) / 40)  # many are equal
        true_boxes.append(np.round(expected / grid) * grid)
    assert ap_bbox(boxes, scores, true_boxes) == pytest.approx(coco_ap(boxes, scores, true_boxes), rel=1e-12)


def test_nothing_is_printed(capsys):
    ap_bbox([[BOX]], [[0.9]], [[BOX]])
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("boxes", "scores", "true_boxes", "message"),
    [
        ([[BOX]], [[0.9, 0.8]], [[BOX]], r"scores must have shape \[1\]"),
        ([[BOX[:3]]], [[0.9]], [[BOX]], r"boxes must have shape \[N, 4\], got \[1, 3\]"),
        ([[BOX]], [[0.9]], [[[0, 0, math.nan, 1]]], "true_boxes must be finite"),
        ([[BOX]], [[math.inf]], [[BOX]], "scores must be finite, got inf"),
    ],
)
def test_bad_input_is_named(boxes, scores, true_boxes, message):
    with pytest.raises(ValueError, match=message):
        ap_bbox(boxes, scores, true_boxes)
