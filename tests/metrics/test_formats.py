"""Prediction formats on disk: what each one stores, and its errors."""

import json

import numpy as np
import pytest
from PIL import Image

from rpcnn.formats import FORMATS, Prediction, detect_format, make_format


def prediction(overlap=False):
    """Two people of three parts on 6 × 9 pixels, the second with the higher score, and a label outside both people."""
    people = np.zeros((2, 6, 9), np.uint8)
    people[0, 1:4, 0:4] = [[1, 1, 2, 2]] * 3
    people[1, 2:6, 4:8] = [[3, 3, 1, 1]] * 4
    if overlap:
        people[1, 2, 2:4] = 3
    labels = people[0].copy()
    np.copyto(labels, people[1], where=people[1] > 0)
    labels[0, 8] = 5
    return Prediction(labels, people, np.array([0.25, 0.75]), None, np.array([0.5, 0.875]))


def stored(name, folder, *predictions):
    format = make_format(name)
    for i, one in enumerate(predictions):
        format.write(folder, f"{i:04d}", one)
    format.finish(folder)
    return make_format(name)


@pytest.mark.parametrize("name", ["people", "coco"])
def test_formats_for_overlapping_people_keep_everything(name, tmp_path):
    expected = prediction(overlap=True)
    got = stored(name, tmp_path, expected).read(tmp_path, "0000")
    for field in ("label_map", "person_maps", "scores", "boxes", "box_scores"):
        assert np.array_equal(getattr(got, field), getattr(expected, field)), field


@pytest.mark.parametrize("name", ["instances", "mhp"])
def test_single_layer_formats_give_overlaps_to_higher_scores(name, tmp_path):
    expected = prediction(overlap=True)
    got = stored(name, tmp_path, expected).read(tmp_path, "0000")
    assert np.array_equal(np.asarray(got.person_maps)[1], expected.person_maps[1])
    assert np.array_equal(
        np.asarray(got.person_maps)[0], np.where(expected.person_maps[1] > 0, 0, expected.person_maps[0])
    )
    assert np.array_equal(got.label_map, expected.label_map)
    assert got.scores == pytest.approx([0.25, 0.75])


def test_cihp_server_numbers_the_parts(tmp_path):
    got = stored("cihp", tmp_path, prediction()).read(tmp_path, "0000")
    assert (tmp_path / "instance_parsing" / "0000.txt").read_text() == "1 0.25\n2 0.25\n1 0.75\n3 0.75\n"
    assert [np.unique(part).tolist() for part in np.asarray(got.part_maps)] == [[0, 1], [0, 2], [0, 1], [0, 3]]
    assert np.array_equal(np.asarray(got.part_maps)[:2].max(0), prediction().person_maps[0])
    assert got.part_scores.tolist() == [0.25, 0.25, 0.75, 0.75]
    assert len(got.person_maps) == 0 and np.array_equal(got.label_map, prediction().label_map)


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_is_detected_from_the_files(name, tmp_path):
    stored(name, tmp_path, prediction())
    assert detect_format(tmp_path) == name


@pytest.mark.parametrize("name", FORMATS)
def test_what_macos_leaves_beside_the_files_is_no_prediction(name, tmp_path):
    stored(name, tmp_path, prediction())
    for path in sorted(tmp_path.rglob("*.*")):
        path.with_name(f"._{path.name}").write_bytes(b"\0")
    assert detect_format(tmp_path) == name and make_format(name).stems(tmp_path) == ["0000"]


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_without_people(name, tmp_path):
    empty = Prediction(np.zeros((4, 5), np.uint8), np.zeros((0, 4, 5), np.uint8), np.zeros(0))
    format = stored(name, tmp_path, empty)
    assert format.stems(tmp_path) == ["0000"]
    got = format.read(tmp_path, "0000")
    assert got.person_maps.shape == (0, 4, 5) and got.scores.shape == (0,) and got.boxes.shape == (0, 4)


def test_more_than_255_people(tmp_path):
    people = np.zeros((300, 20, 15), np.uint8)
    people[np.arange(300), np.arange(300) // 15, np.arange(300) % 15] = 7
    got = stored("instances", tmp_path, Prediction(people.max(0), people, np.linspace(0.1, 0.9, 300)))
    assert np.array_equal(got.read(tmp_path, "0000").person_maps, people)


def test_output_of_predict_loads(tmp_path):
    import torch

    from rpcnn.inference.results import ParsingResult
    from rpcnn.labels import CIHP

    one = prediction()
    order = [1, 0]  # best first
    instances = torch.zeros(6, 9, dtype=torch.uint8)
    for i, n in enumerate(order):
        instances[torch.from_numpy(one.person_maps[n]) > 0] = i + 1
    scores = torch.tensor(one.scores[order], dtype=torch.float32)
    boxes = torch.tensor(one.boxes[order], dtype=torch.float32)
    people, labels = torch.from_numpy(one.person_maps[order]), torch.from_numpy(one.label_map)
    ParsingResult(boxes, scores, scores, scores, people, labels, instances, CIHP).save(tmp_path, "street")
    assert detect_format(tmp_path) == "instances"
    got = make_format("instances").read(tmp_path, "street")
    assert np.array_equal(got.person_maps, one.person_maps[order]) and np.array_equal(got.boxes, one.boxes[order])
    assert np.array_equal(got.label_map, one.label_map)


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("instances", "0000_labels.png", None, "0000_labels.png: not found"),
        (
            "instances",
            "0000_instances.png",
            np.full((6, 9), 3, np.uint8),
            "numbers up to the JSON's 2 people, .* and 3",
        ),
        ("instances", "0000.json", "{", "0000.json: is not JSON"),
        ("instances", "0000.json", "[]", "0000.json: must hold 'people'"),
        ("people", "0000_person_2.png", None, "0000_person_2.png: not found"),
        ("people", "0000_person_2.png", np.zeros((6, 8), np.uint8), r"size \(6, 9\), got \(6, 8\)"),
        ("people", "0000_person_1.png", np.zeros((6, 9, 3), np.uint8), "must hold a value per pixel"),
        ("people", "0000_labels.png", "no picture", "0000_labels.png: cannot be read"),
        ("coco", "predictions.json", "{}", "must be an object with 'images' and 'annotations'"),
        ("coco", "predictions.json", '{"images": [], "annotations": [{"image_id": 7}]}', "image_id 7 is no image's"),
        ("coco", "predictions.json", '{"images": [{"id": "0000"}], "annotations": []}', "0000: height is missing"),
        ("cihp", "instance_parsing/0000.txt", "1 0.5 2\n", "line 1 must be 'class score', got '1 0.5 2'"),
        ("cihp", "instance_parsing/0000.txt", "1 0.5\n", "numbers up to the 1 lines"),
        ("cihp", "instance_parsing/0000.txt", "0 1\n" * 4, "classes must be whole numbers from 1 on"),
        ("mhp", "instance_segmentation/0000.txt", "best\n", "line 1 must be 'score', got 'best'"),
    ],
)
def test_faults_are_named(name, file, change, message, tmp_path):
    format = stored(name, tmp_path, prediction())
    path = tmp_path / file
    path.unlink()
    if isinstance(change, str):
        path.write_text(change)
    elif change is not None:
        Image.fromarray(change).save(path)
    with pytest.raises(ValueError, match=message):
        format.read(tmp_path, "0000")


def test_unknown_formats_and_folders_raise(tmp_path):
    with pytest.raises(ValueError, match=r"format: must be one of instances, .*, got 'voc'"):
        make_format("voc")
    with pytest.raises(ValueError, match="looks like none of the formats"):
        detect_format(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        detect_format(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(counts="0"), r"image 0000: annotations.*run lengths must make up the 54 pixels of the size, got b'0'"),
        (dict(counts=[53]), r"run lengths must make up the 54 pixels of the size, got 53"),
        (
            dict(counts=[-1, 55]),
            r"annotations\[0\].parts\[0\].segmentation: .*counts must be lengths in pixels",
        ),
        (dict(counts=7), "run lengths must be pycocotools' compressed text, got int"),
        (dict(size=[6, 8]), r"parts\[0\].segmentation.size: must be the image's \[6, 9\], got \[6, 8\]"),
    ],
)
def test_coco_masks_that_do_not_fit_are_named(change, message, tmp_path):
    stored("coco", tmp_path, prediction())
    path = tmp_path / "predictions.json"
    record = json.loads(path.read_text())
    record["annotations"][0]["parts"][0]["segmentation"].update(change)
    path.write_text(json.dumps(record))
    format = make_format("coco")
    with pytest.raises(ValueError, match=message):
        format.read(tmp_path, "0000")


def test_coco_masks_are_run_length_codes_of_pycocotools(tmp_path):
    from pycocotools import mask

    stored("coco", tmp_path, prediction())
    record = json.loads((tmp_path / "predictions.json").read_text())
    part = record["annotations"][0]["parts"][0]
    assert np.array_equal(mask.decode(part["segmentation"]), prediction().person_maps[0] == part["category_id"])
    assert record["annotations"][0]["bbox"] == [0, 1, 4, 3]


def test_pycocotools_loads_the_coco_file_with_masks_areas_and_boxes(tmp_path, capsys):
    from pycocotools.coco import COCO

    stored("coco", tmp_path, prediction(overlap=True), prediction())
    coco = COCO(str(tmp_path / "predictions.json"))
    assert coco.getCatIds(catNms=["person"]) == [1] and coco.getImgIds() == [1, 2]
    assert [image["file_name"] for image in coco.loadImgs([1, 2])] == ["0000.jpg", "0001.jpg"]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1], iscrowd=False))
    masks = [coco.annToMask(annotation) for annotation in annotations]
    assert np.array_equal(masks, prediction(overlap=True).person_maps > 0)
    assert [annotation["area"] for annotation in annotations] == [mask.sum() for mask in masks]
    assert sorted(coco.anns) == [1, 2, 3, 4]
    results = coco.loadRes([{**one, "segmentation": dict(one["segmentation"])} for one in annotations])
    assert len(results.anns) == 2


def test_coco_files_of_version_0_1_are_read(tmp_path):
    expected = prediction(overlap=True)
    stored("coco", tmp_path, expected)
    path = tmp_path / "predictions.json"
    record = json.loads(path.read_text())
    for image in record["images"]:
        image.update(id=image.pop("file_name").removesuffix(".jpg"))
    keys = ("image_id", "category_id", "score", "box_score", "bbox", "parts")
    people = [{key: one[key] for key in keys} | {"image_id": "0000"} for one in record["annotations"]]
    path.write_text(json.dumps({"images": record["images"], "annotations": people}))
    format = make_format("coco")
    assert format.stems(tmp_path) == ["0000"]
    assert np.array_equal(format.read(tmp_path, "0000").person_maps, expected.person_maps)


@pytest.mark.parametrize("stem", ["a.b", "photo.png", "ü 1"])
def test_any_stem_of_an_image_survives_the_coco_file(stem, tmp_path):
    format = make_format("coco")
    format.write(tmp_path, stem, prediction())
    format.finish(tmp_path)
    assert make_format("coco").stems(tmp_path) == [stem]


def test_polygons_and_plain_run_lengths_of_other_tools_are_read(tmp_path):
    stored("coco", tmp_path, prediction())
    path = tmp_path / "predictions.json"
    record = json.loads(path.read_text())
    size = [6, 9]
    record["annotations"][0]["parts"] = [
        {"category_id": 2, "segmentation": [[0, 0, 9, 0, 9, 6, 0, 6]]},
        {"category_id": 4, "segmentation": {"size": size, "counts": [0, 6, 48]}},
    ]
    path.write_text(json.dumps(record))
    person = make_format("coco").read(tmp_path, "0000").person_maps[0]
    assert (person[:, 0] == 4).all() and (person[:, 1:] == 2).all()


def test_the_first_of_equal_scores_is_on_top(tmp_path):
    people = np.array([[[1, 1, 0]], [[0, 2, 2]]], np.uint8)
    got = stored("instances", tmp_path, Prediction(people.max(0), people, np.ones(2))).read(tmp_path, "0000")
    assert np.asarray(got.person_maps).tolist() == [[[1, 1, 0]], [[0, 0, 2]]]
