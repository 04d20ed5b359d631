import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from rpcnn.inference.results import ParsingResult
from rpcnn.labels import CIHP, PASCAL_PERSON_PART

PEOPLE = ("boxes", "box_scores", "iou_scores", "scores", "person_maps")


def make_result(count=3, height=20, width=30, label_set=CIHP):
    """`count` people, each a rectangle of two parts overlapping the next one; the highest score is in front."""
    people = torch.zeros(count, height, width, dtype=torch.uint8)
    instances, labels = torch.zeros(height, width, dtype=torch.int32), torch.zeros(height, width, dtype=torch.uint8)
    boxes = torch.zeros(count, 4)
    for i in reversed(range(count)):
        left = 7 * i % (width - 10)
        people[i, 3:10, left : left + 10], people[i, 10:18, left : left + 10] = 1 + i % 6, 2 + i % 5
        boxes[i] = torch.tensor([left, 3, left + 10, 18])
        instances[people[i] > 0], labels[people[i] > 0] = i + 1, people[i][people[i] > 0]
    scores = torch.linspace(0.9, 0.3, count)
    return ParsingResult(
        boxes=boxes,
        box_scores=scores.clone(),
        iou_scores=scores.clone(),
        scores=scores,
        person_maps=people,
        label_map=labels,
        instance_map=instances.to(torch.uint8 if count < 256 else torch.uint16),
        label_set=label_set,
    )


@pytest.fixture
def result():
    return make_result()


def test_length_is_the_number_of_people(result):
    assert len(result) == 3 and len(make_result(0)) == 0


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        (0, [0]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        (torch.tensor([True, False, True]), [0, 2]),
        (np.array([False, True, False]), [1]),
        (slice(0, 0), []),
    ],
)
def test_indexing_selects_people_and_renumbers_instances(result, index, kept):
    part = result[index]
    assert len(part) == len(kept)
    for name in PEOPLE:
        assert torch.equal(getattr(part, name), getattr(result, name)[kept])
    for new, old in enumerate(kept):
        assert torch.equal(part.instance_map == new + 1, result.instance_map == old + 1)
    assert int((part.instance_map == 0).sum()) == sum(
        int((result.instance_map == n).sum()) for n in {0, 1, 2, 3} - {k + 1 for k in kept}
    )
    assert torch.equal(part.label_map, result.label_map)


def test_a_number_beyond_the_people_is_an_error(result):
    with pytest.raises(IndexError):
        result[3]


def test_above_keeps_a_score_equal_to_the_threshold(result):
    assert len(result.above(float(result.scores[1]))) == 2
    assert len(result.above(0.95)) == 0


def test_indexing_keeps_more_than_255_instance_ids():
    many = make_result(300)
    assert many[:280].instance_map.dtype == torch.uint16
    assert torch.equal(many[:280].instance_map.long(), many.instance_map.long() * (many.instance_map.long() <= 280))
    assert many[:200].instance_map.dtype == torch.uint8


def test_numpy_gives_every_field_but_the_label_set(result):
    arrays = result.numpy()
    assert set(arrays) == {*PEOPLE, "label_map", "instance_map"}
    assert np.array_equal(arrays["person_maps"], result.person_maps.numpy())


def test_the_maps_have_short_names_too(result):
    assert result.labels is result.label_map
    assert result.people is result.person_maps
    assert result.instances is result.instance_map


def test_cpu_keeps_values(result):
    assert torch.equal(result.cpu().person_maps, result.person_maps) and result.cpu().label_set is CIHP


def test_coco_entries(result):
    result.box_scores[1], result.iou_scores[1] = 0.7, 0.4
    entries = json.loads(json.dumps(result.to_coco(12)))
    assert [entry["image_id"] for entry in entries] == [12] * 3
    one = entries[1]
    assert one["bbox"] == [7, 3, 10, 15]  # x 7 … 17, y 3 … 18
    assert (one["score"], one["box_score"], one["iou_score"]) == pytest.approx((0.6, 0.7, 0.4))
    assert one["category_id"] == 1 and one["segmentation"]["size"] == [20, 30]
    for entry, person in zip(entries, result.person_maps, strict=True):
        assert np.array_equal(coco_mask.decode(entry["segmentation"]), (person > 0).numpy())


def test_no_people_give_no_coco_entry():
    assert make_result(0).to_coco("x") == []


def test_saved_maps_hold_class_ids_and_the_palette(result, tmp_path):
    result.save(tmp_path, "photo")
    picture = Image.open(tmp_path / "photo_labels.png")
    assert picture.mode == "P"
    assert np.array_equal(np.array(picture), result.label_map.numpy())
    assert picture.getpalette()[: 3 * 20] == [value for color in CIHP.palette for value in color]


def test_label_values_survive_a_palette_of_few_colors(tmp_path):
    # 7 colors would fit into 4 bits per pixel; an unknown pixel of 255 would not.
    result = make_result(label_set=PASCAL_PERSON_PART)
    result.label_map[0, 0] = 255
    result.save(tmp_path, "photo")
    assert np.array_equal(np.array(Image.open(tmp_path / "photo_labels.png")), result.label_map.numpy())


@pytest.mark.parametrize(("count", "mode"), [(3, "P"), (255, "P"), (300, "I;16")])
def test_saved_instances_keep_every_number(count, mode, tmp_path):
    result = make_result(count, 30, 2300)
    assert int(result.instance_map.long().max()) == count
    result.save(tmp_path, "crowd")
    picture = Image.open(tmp_path / "crowd_instances.png")
    assert picture.mode == mode
    assert np.array_equal(np.array(picture), result.instance_map.numpy())


def test_saved_json(result, tmp_path):
    result.boxes[0] = torch.tensor([0.1, 3.25, 10.7, 18])
    result.save(tmp_path, "photo")
    record = json.loads((tmp_path / "photo.json").read_text())
    assert (record["height"], record["width"], record["label_set"]) == (20, 30, "CIHP")
    assert record["labels"] == list(CIHP.names)
    assert [person["instance"] for person in record["people"]] == [1, 2, 3]
    assert record["people"][0] == {
        "instance": 1,
        "box": [0.1, 3.25, 10.7, 18.0],
        "score": 0.9,
        "box_score": 0.9,
        "iou_score": 0.9,
        "parts": ["Hat", "Hair"],
    }


def test_json_numbers_read_back_as_the_same_float32(result, tmp_path):
    torch.manual_seed(3)
    result.scores, result.boxes = torch.rand(3), 1000 * torch.rand(3, 4)
    result.save(tmp_path, "photo")
    people = json.loads((tmp_path / "photo.json").read_text())["people"]
    assert torch.equal(torch.tensor([person["score"] for person in people]), result.scores)
    assert torch.equal(torch.tensor([person["box"] for person in people]), result.boxes)


def test_saving_returns_four_files_and_leaves_no_other(result, tmp_path):
    paths = result.save(tmp_path / "new" / "folder", "photo", np.zeros((20, 30, 3), np.uint8))
    assert sorted(path.name for path in paths) == sorted(os.listdir(tmp_path / "new" / "folder"))
    assert len(paths) == 4


def test_saving_again_replaces(result, tmp_path):
    result.save(tmp_path, "photo")
    make_result(1).save(tmp_path, "photo")
    assert len(json.loads((tmp_path / "photo.json").read_text())["people"]) == 1
    assert len(os.listdir(tmp_path)) == 4


def test_a_failed_write_keeps_the_old_file(result, tmp_path, monkeypatch):
    result.save(tmp_path, "photo")
    before = (tmp_path / "photo.json").read_bytes()

    def full_disk(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        make_result(1).save(tmp_path, "photo")
    assert (tmp_path / "photo.json").read_bytes() == before
    assert len(os.listdir(tmp_path)) == 4


def test_save_raises_on_image_size_before_writing(result, tmp_path):
    with pytest.raises(ValueError, match=r"image: must have the result's size \(20, 30\), got \(30, 20\)"):
        result.save(tmp_path, "photo", np.zeros((30, 20, 3), np.uint8))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stem", ["", "a/b", "../x", "/x"])
def test_a_stem_that_is_no_file_name_is_refused(result, tmp_path, stem):
    with pytest.raises(ValueError, match="stem must be a plain file name"):
        result.save(tmp_path, stem)


def test_a_result_without_people_is_saved(tmp_path):
    make_result(0).save(tmp_path, "empty")
    assert json.loads((tmp_path / "empty.json").read_text())["people"] == []
    assert not np.array(Image.open(tmp_path / "empty_instances.png")).any()


def test_plot_accepts_pil_arrays_or_no_image(result):
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(np.array(result.plot(array)), np.array(result.plot(Image.fromarray(array))))
    assert result.plot().size == result.plot(array).size


def test_the_picture_may_be_a_path(result, tmp_path):
    picture = Image.new("RGB", (30, 20), (200, 100, 0))
    picture.save(tmp_path / "photo.png")
    assert result.plot(tmp_path / "photo.png").tobytes() == result.plot(picture).tobytes()
