"""The released code's inference: pixel statistics, padding, resizing, scores, pasting and evaluation."""

import dataclasses
import math
import types

import numpy as np
import pytest
import torch
from helpers.inference import augmenting, combined
from helpers.models import configured, scene
from helpers.released_variant import CONFIG, released

from rpcnn.box_convention import EDGES, PIXELS
from rpcnn.config import load_config
from rpcnn.data.transforms import TestTransform, released_scale, resize_by_factor
from rpcnn.inference.pipeline import Pipeline
from rpcnn.labels import CIHP, LabelSet
from rpcnn.metrics import ParsingEvaluator
from rpcnn.model import Detections
from rpcnn.model.prsn import PRSN
from rpcnn.model.released import paste_rounded

BOXES = PIXELS if CONFIG.variant.inclusive_boxes else EDGES
STRETCH = paste_rounded if CONFIG.variant.pasting == "rounded" else None
BGR_MEAN = torch.tensor([102.9801, 115.9465, 122.7717])[:, None, None]


# Pixels


@pytest.mark.parametrize("training", [True, False])
def test_input_is_bgr_minus_mean_padded_black_at_test(training):
    model, image = released().train(training), scene(1, height=60, width=90)[0]
    batch, sizes = model.normalize_and_pad([image])
    assert batch.shape == (1, 3, 64, 96) and sizes == [(60, 90)]
    torch.testing.assert_close(batch[0, :, :60, :90], image[[2, 1, 0]].float() - BGR_MEAN)
    padding = torch.zeros(3, 1, 1) if training else -BGR_MEAN
    torch.testing.assert_close(batch[0, :, 60:], padding.expand(3, 4, 96))
    torch.testing.assert_close(batch[0, :, :, 90:], padding.expand(3, 64, 6))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),  # 1066.7: truncated in training
        ((333, 500), (800, 1201)),
        ((600, 1000), (800, 1333)),  # round(1333.3) is not too long
        ((300, 1000), (400, 1333)),
        ((1000, 599), (1333, 798)),  # 1335.6 is: both sides times 1.333
        ((1, 5000), (1, 1333)),
    ],
)
def test_both_sides_are_rounded_at_test(size, expected):
    image = torch.zeros(3, *size, dtype=torch.uint8)
    assert tuple(Pipeline(released(), CONFIG, CIHP).transform(image).shape[1:]) == expected


def opencv_bilinear(image: np.ndarray, height: int, width: int, scale: float | None = None) -> np.ndarray:
    """Resize [H, W, ...] bilinearly by a factor or to a size: pixel centers, replicated borders, no antialiasing."""
    for axis, new in ((0, height), (1, width)):
        old = image.shape[axis]
        position = np.clip((np.arange(new) + 0.5) / (scale or new / old) - 0.5, 0, old - 1)
        low = np.floor(position).astype(int)
        weight = (position - low).reshape([-1 if i == axis else 1 for i in range(image.ndim)])
        high = np.minimum(low + 1, old - 1)
        image = image.take(low, axis) * (1 - weight) + image.take(high, axis) * weight
    return image


@pytest.mark.parametrize("size", [(60, 90), (61, 97), (330, 240)])
def test_pictures_are_resized_by_the_factor_without_antialiasing_or_rounding(size):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    got = TestTransform(120, 200, CONFIG.variant.test_resize)(image)
    scale = released_scale(*size, 120, 200)
    expected = opencv_bilinear(image.permute(1, 2, 0).double().numpy(), *got.shape[1:], scale)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), expected, atol=2e-3)
    if size[0] > 120:
        assert (got - TestTransform(120, 200)(image)[:, : got.shape[1], : got.shape[2]]).abs().max() > 20


def test_the_factor_and_the_ratio_of_the_sizes_differ():
    image = torch.arange(97, dtype=torch.uint8).expand(3, 61, 97)
    by_factor = resize_by_factor(image, 120 / 61)
    by_ratio = torch.nn.functional.interpolate(image[None].float(), size=by_factor.shape[1:], mode="bilinear")[0]
    assert 0.05 < (by_factor - by_ratio).abs().max() < 0.5


def test_the_network_takes_pictures_that_are_not_rounded():
    model, image = released().eval(), scene(1, height=60, width=90)[0]
    batch, _ = model.normalize_and_pad([image.float() + 0.25])
    torch.testing.assert_close(batch[0, :, :60, :90], image[[2, 1, 0]].float() + 0.25 - BGR_MEAN)
    assert len(model([image.float() + 0.25])) == 1


def test_augmented_passes_are_resized_alike():
    model = released(num_classes=CIHP.num_classes)
    scales = Pipeline(model, configured(CONFIG, augment=True), CIHP).augmented.scales
    assert len(scales) == 9 and not any(scale.antialias for scale in scales)


# Scores


def with_constant_iou(model, value: float):
    torch.nn.init.zeros_(model.prsn.iou.weight)
    torch.nn.init.constant_(model.prsn.iou.bias, value)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize(("predicted", "root"), [(1.44, 1.2), (0.25, 0.5), (-0.3, 0.0)])
def test_the_predicted_iou_is_unclamped_and_never_nan(predicted, root):
    image = scene(1)[0]
    found = with_constant_iou(released(min_box_score=0.0), predicted)([image])[0]
    assert len(found.boxes) > 0
    torch.testing.assert_close(found.iou_scores, torch.full_like(found.box_scores, predicted))
    torch.testing.assert_close(found.scores, found.box_scores.sqrt() * root)
    clamped = with_constant_iou(released(min_box_score=0.0, clamp_iou=True), predicted)([image])[0]
    torch.testing.assert_close(clamped.scores, clamped.box_scores.sqrt() * min(root, 1))


def test_prsn_reads_logits_with_a_second_stride_of_2():
    prsn = released().prsn
    assert prsn.conv2.stride == (2, 2)
    feature, logits = torch.randn(2, 16, 8, 8), torch.randn(2, 6, 32, 32)
    assert not torch.allclose(prsn(feature, logits), prsn(feature, logits + 5))  # softmax would ignore a constant 5
    paper = PRSN(16, 6, channels=8, hidden=8)
    torch.testing.assert_close(paper(feature, logits), paper(feature, logits + 5))


# The global map


@torch.no_grad()
def test_the_global_map_is_resized_with_its_padding():
    image = scene(1, height=52, width=70)[0]
    model = released().eval()
    found = model([image])[0]
    assert found.label_probs.shape == (6, 16, 24)  # of 64 x 96 padded pixels
    labels = torch.zeros(16, 24)
    labels[:, 23] = 3
    found.label_probs = torch.nn.functional.one_hot(labels.long(), 6).movedim(-1, 0).float()
    result = combined(found, (104, 140), CIHP, semantic_mode="semseg")
    assert (result.label_map[:, -1] == 3).all()  # the last padded column maps to the last image column
    model.variant = dataclasses.replace(model.variant, crop_semantic=True)
    assert model([image])[0].label_probs.shape == (6, 13, 18)


@torch.no_grad()
def test_one_augmented_pass_is_the_released_inference():
    six = LabelSet("six", CIHP.names[:6])
    model = with_constant_iou(released(min_box_score=0.0), -0.3)
    image = scene(1, height=52, width=70)[0]
    augmented = augmenting(model, six, [lambda x: x], flip=False, suppression="off", voting_iou=0)(image)
    plain = model([image])[0]
    torch.testing.assert_close(augmented.boxes, plain.boxes)
    assert not augmented.scores.isnan().any()
    assert augmenting(model, six, [lambda x: x]).run_pass(image, False)[0].convention is PIXELS
    maps = [combined(found, (52, 70), six, semantic_mode="semseg").label_map for found in (augmented, plain)]
    assert (maps[0] == maps[1]).float().mean() > 0.99


# Pasting


def test_the_window_of_a_box():
    # (10, 20, 73, 147) grows by 130/128 about (41.5, 83.5) to x 9.508..73.492, y 19.008..147.992.
    _, window = paste_rounded(torch.zeros(1, 6, 128, 128), torch.tensor([[10.0, 20, 74, 148]]))
    assert window.tolist() == [[9, 19, 9 + 65, 19 + 129]]


def test_windows_are_truncated_towards_zero_and_hold_a_pixel():
    boxes = torch.tensor([[-3.0, -3, 8, 8], [5.2, 5.2, 5.4, 5.4]])
    _, windows = paste_rounded(torch.zeros(2, 6, 4, 4), boxes)
    # First to last pixel -3..7: 2 +- 7.5, to -5.5..9.5. A box of 5.2..4.4: 4.8 -+ 0.6, to 5..4, is one pixel.
    assert windows.tolist() == [[-5, -5, 10, 10], [5, 5, 6, 6]]


def released_paste(probabilities, box, semantic, weight):
    """Paste one person's map pixel by pixel; the box is inclusive, semantic is [H, W, K] at image size."""
    height, width, _ = semantic.shape
    x1, y1, x2, y2 = box
    side = probabilities.shape[1]
    grow = (side + 2) / side / 2
    left, right = (int((x1 + x2) / 2 + sign * (x2 - x1) * grow) for sign in (-1, 1))
    top, bottom = (int((y1 + y2) / 2 + sign * (y2 - y1) * grow) for sign in (-1, 1))
    padded = np.pad(probabilities.double().numpy(), ((0, 0), (1, 1), (1, 1))).transpose(1, 2, 0)
    person = opencv_bilinear(padded, max(bottom - top + 1, 1), max(right - left + 1, 1))
    result = np.zeros((height, width), np.uint8)
    for y in range(max(top, 0), min(top + person.shape[0], height)):
        for x in range(max(left, 0), min(left + person.shape[1], width)):
            values = person[y - top, x - left]
            if values.argmax() >= 1:
                result[y, x] = (values + weight * semantic[y, x]).argmax()
    return result


def blobs(people: int, size: int) -> torch.Tensor:
    """Smooth random probabilities [people, 6, size, size]."""
    coarse = torch.randn(people, 6, 4, 4) * 4
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").softmax(1)


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_pasting_equals_the_released_steps_one_by_one(weight):
    height, width = 75, 110
    network, image = (60, 88), (height, width)  # boxes in network pixels; each axis has its own ratio
    boxes = torch.tensor([[5.3, 6.2, 50.9, 55.8], [30, 10, 88, 60], [0, 40, 20.5, 49.25], [60.1, 3, 63.9, 58]])
    found = Detections(
        boxes=boxes,
        box_scores=torch.tensor([0.9, 0.8, 0.7, 0.6]),
        iou_scores=torch.ones(4),
        person_probs=blobs(4, 16),
        label_probs=blobs(1, 16)[0],
        image_size=network,
        label_probs_size=network,
    )
    result = combined(
        found,
        image,
        CIHP,
        instance_semantic_weight=weight,
        stretch=STRETCH,
        boxes=BOXES,
    )
    semantic = opencv_bilinear(found.label_probs.permute(1, 2, 0).double().numpy(), height, width)
    scale = np.array([width / 88, height / 60] * 2)
    differing = 0
    for i in range(4):
        last = (boxes[i].double().numpy() - [0, 0, 1, 1]) * scale
        np.testing.assert_allclose(result.boxes[i].numpy(), last + np.array([0, 0, 1, 1]), rtol=1e-5)
        expected = released_paste(found.person_probs[i], last, semantic, weight)
        assert expected.any()
        differing += (result.person_maps[i].numpy() != expected).sum()
    assert differing <= 2  # probabilities that tie within float32


def test_the_border_cell_is_background():
    """Even a map without background leaves the window's outer edge empty, because the zero border wins there."""
    maps = torch.zeros(1, 6, 8, 8)
    maps[:, 1] = 1.0
    found = Detections(torch.tensor([[10.0, 10, 50, 50]]), torch.ones(1), torch.ones(1), maps, None, (60, 60))
    person = combined(found, (60, 60), CIHP, stretch=STRETCH, boxes=PIXELS).person_maps[0]
    # The window is 5..53, of 10 cells of 4.9 pixels: up to the border cell's center, 7.45, there are nothing but zeros.
    assert person.nonzero().amin(0).tolist() == [7, 7] and person.nonzero().amax(0).tolist() == [51, 51]
    exact = combined(found, (60, 60), CIHP).person_maps[0]
    assert exact.nonzero().amin(0).tolist() == [10, 10] and exact.nonzero().amax(0).tolist() == [49, 49]


def test_a_picture_goes_through_all_of_it():
    """The pipeline that the commands use takes resizing, scaling and pasting from the configuration."""
    seen = []

    class Model(torch.nn.Module):
        pixel_mean, box_head = torch.zeros(3), types.SimpleNamespace(boxes=BOXES)

        def forward(self, images):
            seen.extend(images)
            size = tuple(images[0].shape[1:])
            return [Detections(torch.tensor([[5.0, 6, 80, 90]]), torch.ones(1), torch.ones(1), maps, None, size)]

    config, image = configured(CONFIG, test_short_side=100), scene(1)[0]
    maps = blobs(1, 16)
    model = Model()
    result = Pipeline(model, config, CIHP)(image)
    assert torch.equal(seen[0], TestTransform(100, 1333, "opencv")(image))
    (found,) = model(seen[:1])
    expected = combined(found, (64, 96), CIHP, stretch=paste_rounded, boxes=PIXELS)
    assert torch.equal(result.person_maps, expected.person_maps) and torch.equal(result.boxes, expected.boxes)
    edges = combined(found, (64, 96), CIHP, stretch=paste_rounded)
    assert not torch.equal(result.boxes, edges.boxes)


# Counting


def test_images_without_a_detection_do_not_count():
    def results(skip_empty):
        evaluator = ParsingEvaluator(3, skip_empty=skip_empty)
        truth = np.zeros((4, 4), np.uint8)
        truth[:2] = 1
        one = dict(scores=[0.9], boxes=[[0, 0, 4, 2]], box_scores=[0.9])
        none = dict(scores=np.zeros(0), boxes=np.zeros((0, 4)), box_scores=np.zeros(0))
        evaluator.add(
            label_map=truth, person_maps=truth[None], **one,
            true_label_map=truth, true_person_maps=truth[None], true_boxes=[[0, 0, 4, 2]],
        )  # fmt: skip
        evaluator.add(
            label_map=np.zeros_like(truth), person_maps=np.zeros((0, 4, 4), np.uint8), **none,
            true_label_map=truth, true_person_maps=truth[None], true_boxes=[[0, 0, 4, 2]],
        )  # fmt: skip
        return evaluator.summarize()

    skipped, counted = results(CONFIG.variant.skip_empty), results(False)
    assert skipped["miou"] == 100 and skipped["pixel_accuracy"] == 100
    assert counted["pixel_accuracy"] == 75
    assert skipped["ap_p_50"] == counted["ap_p_50"] == 50  # the person there is missed either way


def test_thresholds_of_the_release():
    for name, threshold in (("released", 0.3), ("released_mhpv2", 0.05)):
        config = load_config(name)
        assert (config.inference.min_parsing_score, config.inference.semantic_gate) == (threshold, 0.7)
        assert (config.inference.instance_semantic_weight, config.inference.max_detections) == (0.2, 100)
        assert math.isclose(config.inference.min_box_score, 0.05)
