"""mIoU, pixel and mean accuracy against values worked out by hand."""

import math

import numpy as np
import pytest

from rpcnn.metrics import class_iou, confusion_matrix, mean_accuracy, miou, pixel_accuracy

# Truth and prediction of 10 counted pixels and 2 ignored ones; 4 classes, of which class 3 occurs nowhere.
#   truth      0 0 0 0 1 1 1 2 2 2 255 255
#   prediction 0 0 0 1 1 1 2 2 2 0   1   2
TRUTH = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 255, 255]
PREDICTION = [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2]


@pytest.fixture
def confusion():
    return confusion_matrix(TRUTH, PREDICTION, 4)


def test_class_iou(confusion):
    # class 0: 3 hits, 4 true, 4 predicted: 3/5. class 1: 2 hits, 3 true, 3 predicted: 2/4. class 2: 2/4. class 3: none.
    iou = class_iou(confusion)
    assert iou[:3] == pytest.approx([60, 50, 50])
    assert np.isnan(iou[3])


def test_miou_skips_absent_classes_and_counts_background(confusion):
    # (3/5 + 2/4 + 2/4) / 3 = 1.6 / 3
    assert miou(confusion) == pytest.approx(160 / 3)


def test_pixel_accuracy(confusion):
    # 3 + 2 + 2 of 10
    assert pixel_accuracy(confusion) == pytest.approx(70)


def test_mean_accuracy(confusion):
    # (3/4 + 2/3 + 2/3) / 3 = 25/36
    assert mean_accuracy(confusion) == pytest.approx(100 * 25 / 36)


def test_a_falsely_predicted_class_lowers_miou_only():
    # truth 0 0 1 1, prediction 0 0 1 2: IoU 1, 1/2, 0 -> mean 1/2; accuracy 1, 1/2, class 2 undefined -> mean 3/4
    confusion = confusion_matrix([0, 0, 1, 1], [0, 0, 1, 2], 3)
    assert miou(confusion) == pytest.approx(50)
    assert mean_accuracy(confusion) == pytest.approx(75)


def test_counts_add_up_over_images_before_the_ratio_is_taken():
    # image 1: truth 1 1 1 1 all right; image 2: truth 1, predicted 0. IoU of class 1: 4 of 5, not (1 + 0) / 2.
    total = confusion_matrix([1, 1, 1, 1], [1, 1, 1, 1], 2) + confusion_matrix([1], [0], 2)
    assert class_iou(total)[1] == pytest.approx(80)
    assert pixel_accuracy(total) == pytest.approx(80)


@pytest.mark.parametrize("metric", [miou, pixel_accuracy, mean_accuracy])
def test_truth_as_prediction_gives_100(metric):
    labels = np.random.default_rng(0).integers(0, 20, (30, 40))
    assert metric(confusion_matrix(labels, labels, 59)) == pytest.approx(100)


@pytest.mark.parametrize("metric", [miou, pixel_accuracy, mean_accuracy])
def test_all_ignored_pixels_leave_metrics_undefined(metric):
    assert math.isnan(metric(confusion_matrix(np.full((3, 3), 255), np.zeros((3, 3), int), 5)))
