import numpy as np
import pytest
import torch
from PIL import Image

from rpcnn.inference.results import ParsingResult
from rpcnn.labels import CIHP, MHP_V2
from rpcnn.visualize import (
    OUTLINES,
    PAPER,
    color_parts,
    free_place,
    inner_edges,
    legend_strip,
    overlay,
    panel,
    resize_labels_center,
)


def make_result(height=300, width=400, label_set=CIHP, scores=(0.9, 0.6)):
    """People of one part each, side by side on the lower half."""
    count = len(scores)
    people = torch.zeros(count, height, width, dtype=torch.uint8)
    instances, boxes = torch.zeros(height, width, dtype=torch.int32), torch.zeros(count, 4)
    for i in range(count):
        margin = width // (10 * count)
        left, right = i * width // count + margin, (i + 1) * width // count - margin
        people[i, height // 2 : height - 10, left:right] = 5 + i % 15
        instances[height // 2 : height - 10, left:right] = i + 1
        boxes[i] = torch.tensor([left, height // 2, right, height - 10])
    scores = torch.tensor(scores)
    labels = people.amax(0) if count else torch.zeros(height, width, dtype=torch.uint8)
    return ParsingResult(boxes, scores, scores, scores, people, labels, instances, label_set)


def gray(height=300, width=400):
    return np.full((height, width, 3), 100, np.uint8)


def count_color(picture, color):
    return int((np.array(picture) == color).all(2).sum())


def test_parts_are_blended_and_background_is_unchanged():
    labels = np.array([[0, 5], [13, 200]], np.uint8)
    picture = color_parts(Image.fromarray(gray(2, 2)), labels, CIHP, opacity=0.6)
    # 0.4 · 100 + 0.6 · (128, 0, 128) for UpperClothes, (192, 0, 128) for Face; 200 is no label of the set
    expected = [[(100, 100, 100), (117, 40, 117)], [(155, 40, 117), (100, 100, 100)]]
    assert np.abs(np.array(picture).astype(int) - np.array(expected)).max() <= 1


def test_unknown_pixels_are_hatched():
    picture = np.array(color_parts(Image.fromarray(gray(30, 30)), np.full((30, 30), 255, np.uint8), CIHP))
    marked = (picture == PAPER).all(2)
    assert 0.2 < marked.mean() < 0.5
    assert (picture[~marked] == 100).all()


def test_inner_edges_lie_within_each_person():
    instances = np.zeros((7, 9), int)
    instances[1:6, 1:5], instances[1:6, 5:8] = 1, 2
    expected = np.zeros((7, 9), bool)
    expected[1:6, 1:8] = True
    expected[2:5, 2:4] = expected[2:5, 6] = False  # pixels surrounded by the same person
    assert np.array_equal(inner_edges(instances), expected)
    assert np.array_equal(inner_edges(instances, 2), instances > 0)


def test_label_resizing_repeats_or_takes_the_middle_pixel():
    labels = np.array([[1, 2, 3], [4, 5, 6]])
    assert np.array_equal(resize_labels_center(labels, (9, 6)), labels.repeat(3, 0).repeat(3, 1))
    assert np.array_equal(resize_labels_center(labels.repeat(3, 0).repeat(3, 1), (3, 2)), labels)
    assert resize_labels_center(labels, (1, 1)).tolist() == [[5]]


def test_overlay_draws_person_outlines_and_boxes():
    result = make_result()
    picture = overlay(gray(), result, legend=False)
    assert picture.size == (400, 300)
    for color, (x1, y1, x2, y2) in zip(OUTLINES, result.boxes.int().tolist(), strict=False):
        assert count_color(picture, color) > 400
        assert {picture.getpixel(corner) for corner in [(x1, y2 - 1), (x2 - 1, y1), (x2 - 1, y2 - 1)]} == {color}
    result.instance_map[result.instance_map == 2] = 0
    assert count_color(overlay(gray(), result, legend=False), OUTLINES[1]) == 0


def test_overlay_draws_the_score_of_each_person():
    one, other = make_result(), make_result(scores=(0.9, 0.35))
    difference = np.abs(np.array(overlay(gray(), one)).astype(int) - np.array(overlay(gray(), other)))
    rows, columns = np.nonzero(difference.sum(2))
    assert len(rows) > 10
    assert rows.max() < 150 and columns.min() >= 200  # above the box of the second person alone


def test_indexed_results_draw_selected_people_only():
    picture = overlay(gray(), make_result()[1], legend=False)
    # The second person becomes the first of the selection: first color, unchanged position.
    columns = np.nonzero((np.array(picture) == OUTLINES[0]).all(2))[1]
    assert columns.min() >= 200
    assert count_color(picture, OUTLINES[1]) == 0


def test_the_legend_names_only_classes_present():
    strip = legend_strip(CIHP, [0, 2, 13, 255], 400, 12)
    assert strip.width == 400
    for label in range(1, 20):
        assert (count_color(strip, CIHP.palette[label]) > 50) == (label in (2, 13))
    assert legend_strip(CIHP, [0, 255], 400, 12).height == 1


@pytest.mark.parametrize("width", [10, 240, 1000])
def test_the_legend_breaks_lines_and_shows_all_59_classes(width):
    strip = np.array(legend_strip(MHP_V2, range(59), width, 12))
    assert strip.shape[1] == width
    found = {tuple(color) for color in strip.reshape(-1, 3).tolist()}
    assert set(MHP_V2.palette[1:]) <= found


@pytest.mark.parametrize(("height", "width"), [(30, 40), (100, 90), (240, 700), (1, 1), (2, 900)])
def test_small_images_are_enlarged_for_legible_text(height, width):
    picture = overlay(gray(height, width), make_result(height, width, scores=()), legend=False)
    scale = picture.width // width
    assert picture.size == (scale * width, scale * height)
    assert min(picture.size) >= 240 or (scale + 1) * max(height, width) > 1280
    assert scale == 1 or (scale - 1) * min(height, width) < 240


def test_large_pictures_have_large_text_and_lines():
    small, large = make_result(), make_result(1800, 2400)
    shares = [
        count_color(overlay(gray(*result.label_map.shape), result, legend=False), OUTLINES[0])
        / result.label_map.numel()
        for result in (small, large)
    ]
    assert shares[1] > 0.7 * shares[0]  # with lines of one pixel it would be a sixth


def test_panel_has_three_tiles_captions_and_legend():
    result, truth = make_result(), np.zeros((300, 400), np.uint8)
    truth[:100] = 13
    picture = panel(gray(), truth, result)
    pixels = np.array(picture)
    assert 3 * 400 <= picture.width < 3 * 400 + 30 and picture.height > 300
    gap = (picture.width - 3 * 400) // 2
    top = 2 * 12
    face = 0.4 * 100 + 0.6 * np.array(CIHP.palette[13])
    assert np.abs(pixels[top + 20, 200] - 100.0).max() <= 1  # the input
    assert np.abs(pixels[top + 20, 400 + gap + 200] - face).max() <= 1  # the truth
    assert np.abs(pixels[top + 20, 800 + 2 * gap + 200] - 100.0).max() <= 1  # the prediction
    assert (pixels[:top] < 80).all(2).any()  # the captions
    below = Image.fromarray(pixels[top + 300 :])
    assert all(count_color(below, CIHP.palette[label]) > 50 for label in (5, 6, 13))


@pytest.mark.parametrize(("height", "width"), [(40, 30), (2000, 3000), (3000, 5), (1, 1)])
def test_panel_sizes_are_bounded(height, width):
    result = make_result(height, width, scores=())
    picture = panel(gray(height, width), np.zeros((height, width), np.uint8), result)
    assert picture.width <= 3 * 1280 + 100 and picture.height <= 1280 + 100


def test_texts_stay_within_the_picture_and_apart():
    taken = []
    for corner in [(5, 0), (5, 0), (95, 3), (-20, 50), (60, 99)]:
        box = free_place(corner, (20, 10), taken, (100, 100))
        assert min(box) >= 0 and max(box) <= 100
        assert all(box[2] <= t[0] or t[2] <= box[0] or box[3] <= t[1] or t[3] <= box[1] for t in taken)
        taken.append(box)
    assert free_place((30, 40), (20, 10), [], (100, 100)) == (30, 30, 50, 40)  # just above the corner


def test_the_picture_and_the_result_are_not_changed():
    image, result = gray(), make_result()
    labels, instances = result.label_map.clone(), result.instance_map.clone()
    panel(image, np.full((300, 400), 255, np.uint8), result)
    assert (image == 100).all()
    assert torch.equal(result.label_map, labels) and torch.equal(result.instance_map, instances)


def test_more_than_255_people_can_be_drawn():
    result = make_result(40, 6000, scores=(0.5,) * 300)
    result.instance_map = result.instance_map.to(torch.uint16)
    picture = overlay(gray(40, 6000), result, legend=False)
    right = picture.crop((5900, 0, 6000, 40))
    assert count_color(right, OUTLINES[299 % 6]) > 50


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((300, 400, 2), np.uint8), r"image: must be uint8, uint16 or floats.*, got \[300, 400, 2\]"),
        (np.full((300, 400, 3), 2.0), r"image: must be floats in 0..1, got 2..2"),
        (np.zeros((400, 300, 3), np.uint8), r"result's size \(300, 400\), got \(400, 300\)"),
        (Image.new("RGB", (300, 400)), r"result's size \(300, 400\), got \(400, 300\)"),
    ],
)
def test_an_image_that_does_not_fit_is_named(image, message):
    with pytest.raises(ValueError, match=message):
        overlay(image, make_result())


def test_a_truth_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"true_label_map must have the result's size \(300, 400\), got \(300, 401\)"):
        panel(gray(), np.zeros((300, 401), np.uint8), make_result())


def test_real_truth_drawn_as_prediction_equals_the_truth_tile(sample_data, tmp_path, monkeypatch):
    from rpcnn.data.cihp import CIHP as Folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sample = Folder(sample_data / "cihp_sample", "val")[0]
    semantic, none = sample["label_map"], torch.zeros(0)
    height, width = semantic.shape
    result = ParsingResult(
        boxes=torch.zeros(0, 4),
        box_scores=none,
        iou_scores=none,
        scores=none,
        person_maps=torch.zeros(0, height, width, dtype=torch.uint8),
        label_map=semantic,
        instance_map=torch.zeros_like(semantic),
        label_set=CIHP,
    )
    picture = np.array(panel(sample["image"].permute(1, 2, 0).numpy(), semantic.numpy(), result))
    third = (picture.shape[1] - 2 * ((picture.shape[1] - 3 * width) // 2)) // 3
    gap = (picture.shape[1] - 3 * third) // 2
    truth, prediction = picture[40:height, third + gap : 2 * third + gap], picture[40:height, 2 * (third + gap) :]
    assert np.array_equal(truth, prediction)
    assert not np.array_equal(truth, picture[40:height, :third])
