"""The released code's inclusive ("+1") boxes, written out, against rpcnn: where both agree and where they differ."""

import math

import pytest
import torch
import torchvision
from helpers.models import scene
from helpers.released_variant import CONFIG, released

from rpcnn import ops
from rpcnn.box_convention import EDGES, PIXELS, last_pixels, mirror_boxes
from rpcnn.data.transforms import flip_sample, resize_sample
from rpcnn.labels import CIHP
from rpcnn.model.boxes import (
    box_area,
    box_iou,
    cell_anchors,
    decode_boxes,
)
from rpcnn.model.parsing_targets import crop_parsing
from rpcnn.model.released import crop_parsing_rounded

BOXES = PIXELS if CONFIG.variant.inclusive_boxes else EDGES
CROP = crop_parsing_rounded if CONFIG.variant.parsing_crop == "rounded" else crop_parsing

# The "+1" boxes: lists of x1, y1, x2, y2, where x2 and y2 are the last pixels of the box.


def plus_area(box):
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def plus_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    return width * height / (plus_area(a) + plus_area(b) - width * height)


def plus_encode(box, reference, weights):
    values = []
    for low, high in ((0, 2), (1, 3)):
        size, expected = reference[high] - reference[low] + 1, box[high] - box[low] + 1
        shift = (box[low] + 0.5 * expected - reference[low] - 0.5 * size) / size
        values.append((weights[0] * shift, weights[1] * math.log(expected / size)))
    return [values[0][0], values[1][0], values[0][1], values[1][1]]


def plus_decode(deltas, reference, weights):
    corners = []
    for axis, (low, high) in enumerate(((0, 2), (1, 3))):
        size = reference[high] - reference[low] + 1
        center = reference[low] + 0.5 * size + deltas[axis] / weights[0] * size
        size *= math.exp(min(deltas[axis + 2] / weights[1], math.log(1000 / 16)))
        corners.append((center - 0.5 * size, center + 0.5 * size - 1))
    return [corners[0][0], corners[1][0], corners[0][1], corners[1][1]]


def plus_nms(boxes, scores, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(plus_iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


def random_boxes(count: int, size: float = 100) -> torch.Tensor:
    corner, extent = torch.rand(count, 2) * size, torch.rand(count, 2) * size / 2 + 1
    return torch.cat([corner, corner + extent], dim=1)


def as_floats(boxes: torch.Tensor) -> list:
    return last_pixels(boxes.double()).tolist()


# Both agree


def test_anchors_are_the_released_table():
    table = {
        (4, 32): [(-22, -10, 25, 13), (-14, -14, 17, 17), (-10, -22, 13, 25)],
        (8, 64): [(-40, -20, 47, 27), (-28, -28, 35, 35), (-20, -44, 27, 51)],
        (16, 128): [(-84, -40, 99, 55), (-56, -56, 71, 71), (-36, -80, 51, 95)],
        (32, 256): [(-164, -72, 195, 103), (-112, -112, 143, 143), (-76, -168, 107, 199)],
        (64, 512): [(-332, -152, 395, 215), (-224, -224, 287, 287), (-148, -328, 211, 391)],
    }
    for (stride, size), boxes in table.items():
        assert last_pixels(cell_anchors(size, stride)).tolist() == [list(box) for box in boxes]
        # Written out: the cell (0, 0, s-1, s-1), its sides rounded by ratio, enlarged about (s-1)/2.
        for box, ratio in zip(boxes, (0.5, 1, 2), strict=True):
            width = round(math.sqrt(stride**2 / ratio))
            half = [0.5 * (side * size / stride - 1) for side in (width, round(width * ratio))]
            center = (stride - 1) / 2
            assert box == (center - half[0], center - half[1], center + half[0], center + half[1])


def test_areas_and_overlaps():
    a, b = random_boxes(30), random_boxes(20)
    assert box_area(a).tolist() == pytest.approx([plus_area(box) for box in as_floats(a)], rel=1e-4)
    expected = [[plus_iou(x, y) for y in as_floats(b)] for x in as_floats(a)]
    torch.testing.assert_close(box_iou(a, b), torch.tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (10.0, 5.0)])
def test_box_coder(weights):
    boxes, references, deltas = random_boxes(40), random_boxes(40), torch.randn(40, 4)
    deltas[0, 2:] = 100.0  # beyond the limit of growth
    expected = [plus_encode(b, r, weights) for b, r in zip(as_floats(boxes), as_floats(references), strict=True)]
    encoded = ops.encode_boxes(boxes, references, torch.arange(40), weights)
    torch.testing.assert_close(encoded, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    expected = [plus_decode(d, r, weights) for d, r in zip(deltas.tolist(), as_floats(references), strict=True)]
    decoded = last_pixels(decode_boxes(deltas, references, weights))
    torch.testing.assert_close(decoded, torch.tensor(expected), rtol=1e-4, atol=1e-2)
    still = decode_boxes(torch.zeros(40, 4), references, weights)
    torch.testing.assert_close(still, references, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_suppression(threshold):
    boxes, scores = random_boxes(120), torch.rand(120)
    assert ops.nms(boxes, scores, threshold).tolist() == plus_nms(as_floats(boxes), scores.tolist(), threshold)


def test_mirror_images():
    boxes = random_boxes(10)
    expected = [[300 - x2 - 1, y1, 300 - x1 - 1, y2] for x1, y1, x2, y2 in as_floats(boxes)]
    torch.testing.assert_close(last_pixels(mirror_boxes(boxes, 300)), torch.tensor(expected))
    image, target = scene(1)
    flipped = flip_sample({"image": image, **target}, CIHP)["boxes"]
    torch.testing.assert_close(flipped, mirror_boxes(target["boxes"], image.shape[-1]))


def test_anchors_across_the_border(monkeypatch):
    """Anchors with x1 < 0, y1 < 0, x2 >= width or y2 >= height of the unpadded image are ignored."""
    model = released()
    model.rpn.samples = 100_000
    maps = [torch.randn(1, 16, 24 // 2**i, 32 // 2**i) for i in range(4)]
    objectness, deltas, anchors = model.rpn(maps)
    height, width = 90, 125
    inside = [x1 >= 0 and y1 >= 0 and x2 < width and y2 < height for x1, y1, x2, y2 in as_floats(anchors)]
    nobody = {"boxes": torch.zeros(0, 4)}
    terms = model.rpn.loss(objectness, deltas, anchors, [(height, width)], [nobody], [None])
    assert int(terms["rpn_objectness"][1]) == sum(inside) > 0


@pytest.mark.parametrize(("side", "level"), [(10, 2), (111, 2), (112, 3), (223, 3), (224, 4), (448, 5), (1000, 5)])
def test_levels_go_by_the_width_with_its_last_pixel(side, level):
    head = released(fpn_channels=4, canonical_size=224).box_head
    head.resolution = 1
    head.fc6 = head.fc7 = torch.nn.Identity()
    head.classes, head.deltas = torch.nn.Linear(4, 2), torch.nn.Linear(4, 8)
    torch.nn.init.ones_(head.classes.weight)
    torch.nn.init.zeros_(head.classes.bias)
    maps = [torch.full((1, 4, 2048 // s, 2048 // s), k / 4) for k, s in enumerate((4, 8, 16, 32), 2)]
    logits, _ = head(maps, [torch.tensor([[50.0, 50, 50 + side, 50 + side]])])
    assert logits[0, 0] == level


# Both differ


def test_clipping_keeps_first_and_last_pixel_in_the_image():
    boxes = random_boxes(200) * 2 - 60
    height, width = 90, 125
    expected = [
        [
            min(max(x1, 0), width - 1),
            min(max(y1, 0), height - 1),
            min(max(x2, 0), width - 1),
            min(max(y2, 0), height - 1),
        ]
        for x1, y1, x2, y2 in as_floats(boxes)
    ]
    clipped = BOXES.clip(boxes, (height, width))
    torch.testing.assert_close(last_pixels(clipped), torch.tensor(expected), rtol=1e-5, atol=1e-4)
    assert (clipped[:, 2:] > clipped[:, :2]).all()  # not so with exclusive ends
    assert (EDGES.clip(boxes, (height, width)) == clipped).all(dim=1).float().mean() < 1


@torch.no_grad()
def test_a_box_beyond_the_border_keeps_a_pixel():
    """It stays a proposal and a detection; with exclusive ends the box would be empty and dropped."""
    model, beyond = released(min_box_score=0.0).eval(), torch.tensor([[200.0, 10, 220, 40]])
    logits, deltas = torch.zeros(1, 2), torch.zeros(1, 2, 4)
    boxes, _, _ = model.box_head.candidates(logits, deltas, [beyond], [(90, 125)])
    assert boxes.tolist() == [[124, 10, 125, 40]]
    proposals = model.rpn.propose([torch.zeros(1, 1)], [torch.zeros(1, 1, 4)], beyond, [(90, 125)])
    assert proposals[0].tolist() == [[124, 10, 125, 40]]


def test_roi_align_gets_the_last_pixel():
    model = released().eval()
    pyramid = [torch.randn(1, 16, 40 // 2**i, 40 // 2**i) for i in range(4)]
    boxes = random_boxes(8)
    corners = [last_pixels(boxes)]
    expected = torchvision.ops.roi_align(pyramid[0], corners, 8, 0.25, 2, aligned=False)
    torch.testing.assert_close(model.parsing_head.roi_features(pyramid[0], [boxes]), expected, rtol=1e-4, atol=1e-5)
    model.box_head.canonical_size = 10_000  # all from the finest level
    pooled = torchvision.ops.roi_align(pyramid[0], corners, 7, 0.25, 2, aligned=False)
    hidden = model.box_head.fc7(model.box_head.fc6(pooled.flatten(1)).relu()).relu()
    torch.testing.assert_close(
        model.box_head(pyramid, [boxes])[0], model.box_head.classes(hidden), rtol=1e-4, atol=1e-5
    )


def test_legacy_roi_align():
    """No half-pixel shift, one pixel at least: torchvision's aligned=False, forward and backward."""
    assert not CONFIG.variant.aligned
    constant = torch.full((1, 2, 20, 30), 1.5)
    rois = torch.tensor([[0.0, 2, 2, 20, 15], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(ops.roi_align(constant, rois, 4, 1.0, 2, False), torch.full((2, 2, 4, 4), 1.5))
    x = torch.randn(1, 2, 20, 30, requires_grad=True)
    point, pixel = (ops.roi_align(x, torch.tensor([[0.0, 0, 0, side, side]]), 4, 1.0, 2) for side in (0, 1))
    assert torch.equal(point, pixel)
    rois = torch.cat([torch.zeros(20, 1), random_boxes(20, 20)], dim=1)
    got, expected = ops.roi_align(x, rois, 4, 0.5, 2, False), torchvision.ops.roi_align(x, rois, 4, 0.5, 2, False)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    grad = torch.randn_like(got)
    gradients = [torch.autograd.grad(out, x, grad)[0] for out in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_scaling_multiplies_first_and_last_pixel():
    boxes = random_boxes(5)
    expected = [[1.5 * x1, 2 * y1, 1.5 * x2, 2 * y2] for x1, y1, x2, y2 in as_floats(boxes)]
    scaled = BOXES.resize(boxes, (100, 100), (200, 150))
    torch.testing.assert_close(last_pixels(scaled), torch.tensor(expected), rtol=1e-5, atol=1e-4)


def test_training_boxes_are_scaled_alike():
    image, target = scene(1)
    resized = resize_sample({"image": image, **target}, (128, 240), BOXES)
    expected = [[2.5 * x1, 2 * y1, 2.5 * x2, 2 * y2] for x1, y1, x2, y2 in as_floats(target["boxes"])]
    torch.testing.assert_close(last_pixels(resized["boxes"]), torch.tensor(expected))
    edges = resize_sample({"image": image, **target}, (128, 240))["boxes"]
    torch.testing.assert_close(edges, target["boxes"] * torch.tensor([2.5, 2, 2.5, 2]))


# Proposals and parsing targets


def count_proposals(model) -> list[int]:
    """Number of proposals of two images; the first has the higher scores everywhere."""
    anchors = [torch.rand(300, 2) * 500 for _ in range(4)]
    anchors = [torch.cat([a, a + 5 + torch.rand(300, 2)], dim=1) for a in anchors]
    objectness = [torch.stack([torch.rand(300) + 1, torch.rand(300)]) for _ in range(4)]
    deltas = [torch.zeros(2, 300, 4) for _ in range(4)]
    proposals = model.rpn.propose(objectness, deltas, torch.cat(anchors), [(600, 600)] * 2)
    return [len(boxes) for boxes in proposals]


def test_training_keeps_top_proposals_over_the_batch():
    model = released(rpn_top_train=100, rpn_top_test=100)
    assert count_proposals(model.train()) == [100, 0]
    assert count_proposals(model.eval()) == [100, 100]


def nearest_crop(parsing, box, size):
    """Crop whole pixels without the last row and column, then resize with OpenCV's nearest neighbor."""
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    crop = parsing[max(y1, 0) : y2, max(x1, 0) : x2]
    rows, columns = ([math.floor(i * (1 / (size / n))) for i in range(size)] for n in crop.shape)
    return crop[rows][:, columns]


def test_parsing_target_crops_omit_the_last_pixel():
    parsing = torch.randint(0, 20, (3, 90, 120), dtype=torch.uint8)
    boxes = PIXELS.clip(random_boxes(60, 90) - 3, (90, 120))
    boxes = boxes[(last_pixels(boxes)[:, 2:] - boxes[:, :2].clamp(min=0) > 1.5).all(dim=1)]  # not empty when rounded
    people = torch.arange(len(boxes)) % 3
    assert len(boxes) > 40
    crops = CROP(parsing, people, boxes, 32)
    for crop, person, box in zip(crops, people, last_pixels(boxes), strict=True):
        assert torch.equal(crop, nearest_crop(parsing[person], box, 32))


def test_a_persons_last_row_and_column_are_dropped():
    parsing = torch.zeros(1, 40, 40, dtype=torch.uint8)
    parsing[0, 10:18, 10:18] = 1
    parsing[0, 17], parsing[0, :, 17] = 2, 2
    box, person = torch.tensor([[10.0, 10, 18, 18]]), torch.tensor([0])
    assert CROP(parsing, person, box, 16).unique().tolist() == [1]
    assert crop_parsing(parsing, person, box, 16).unique().tolist() == [1, 2]


def test_the_model_uses_these_crops():
    model = released(parsing_samples=2)
    _, target = scene(1)
    target["person_maps"][0, 47] = 5  # the last row of person 0, which ends at 48
    rois = model.box_head.sample([torch.zeros(0, 4)], [target], [None])
    _, labels = model.parsing_head.sample(rois, [(64, 96)], [target], [None])
    assert len(labels) == 2 and not (labels == 5).any()


def test_a_crop_without_pixels_has_one():
    parsing = torch.arange(100, dtype=torch.uint8).view(1, 10, 10)
    boxes = torch.tensor([[3.2, 4.4, 4.1, 5.2], [9.0, 9, 10, 10], [-6, -6, -2, 3]])
    crops = crop_parsing_rounded(parsing, torch.zeros(3, dtype=torch.long), boxes, 4)
    assert [crop.unique().tolist() for crop in crops] == [[43], [99], [0, 10]]


def test_nearest_pixels_match_opencv_in_double():
    """For some widths, i * width / size is an integer, yet OpenCV takes the pixel before it, and `size / tensor` is
    rounded twice in PyTorch."""
    widths = range(1, 1400)
    parsing = (torch.arange(1400) % 251).to(torch.uint8).expand(1, 2, 1400)
    boxes = torch.tensor([[0.0, 0, width + 1, 2] for width in widths])
    for size in (48, 96, 128):
        rows = crop_parsing_rounded(parsing, torch.zeros(len(boxes), dtype=torch.long), boxes, size)[:, 0].tolist()
        for width, row in zip(widths, rows, strict=True):
            scale = 1 / (size / width)
            assert row == [min(math.floor(i * scale), width - 1) % 251 for i in range(size)], width


def test_a_crop_ends_with_the_map():
    parsing = torch.arange(10, dtype=torch.uint8).expand(1, 10, 10)
    crop = crop_parsing_rounded(parsing, torch.tensor([0]), torch.tensor([[6.0, 0, 30, 11]]), 8)
    assert crop[0, 0].tolist() == [6, 6, 7, 7, 8, 8, 9, 9]
