"""Every kind of file that a result is saved as."""

import contextlib
import io
import json
import types

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from test_results import make_result

from rpcnn.formats import make_format
from rpcnn.inference import coco_file, saving
from rpcnn.inference.probabilities import Probabilities

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def probabilities(count=3, classes=20):
    people = torch.rand(count, classes, 4, 5, generator=torch.manual_seed(0)).softmax(1)
    return Probabilities(people, torch.arange(4.0 * count).reshape(count, 4), torch.rand(classes, 6, 8), (24.0, 32.0))


@pytest.fixture
def result():
    made = make_result()
    made.probabilities = probabilities()
    return made


def names(paths):
    return sorted(path.name for path in paths)


def test_every_kind_has_its_files_and_the_record_is_the_last(result, tmp_path):
    paths = result.save(tmp_path, "a", PHOTO, kinds=saving.KINDS)
    assert names(paths) == names(tmp_path.iterdir()) and paths[-1].name == "a.json"
    assert all(saving.is_result(path) for path in paths)
    (tmp_path / "a.json").write_text("{}")
    assert not any(saving.is_result(path) for path in paths)


@pytest.mark.parametrize("kind", saving.KINDS)
def test_a_kind_alone_writes_its_files_and_the_record(kind, result, tmp_path):
    paths = result.save(tmp_path, "a", PHOTO, kinds=[kind])
    endings = {"people": "person_", "cutouts": "cutout_", "crops": "crop_"}
    assert len(paths) == (4 if kind in endings else 2)
    assert all(f"a_{endings.get(kind, kind)}" in path.name for path in paths[:-1])


def test_an_unknown_kind_is_named(result, tmp_path):
    with pytest.raises(ValueError, match=r"save: must be of overlay, .*, got 'polygon'; did you mean 'polygons'\?"):
        result.save(tmp_path, "a", PHOTO, kinds=["overlay", "polygon"])
    assert not list(tmp_path.iterdir())


def test_what_is_missing_for_a_kind_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="crops and cutouts are cut out of the image"):
        make_result().save(tmp_path, "a", kinds=["labels", "crops"])
    with pytest.raises(ValueError, match="keep_probabilities=True"):
        make_result().save(tmp_path, "a", PHOTO, kinds=["labels", "probabilities"])
    assert not list(tmp_path.iterdir())


def test_maps_of_people_are_those_of_the_format_people(result, tmp_path):
    result.save(tmp_path, "a", PHOTO, kinds=["labels", "people"])
    read = make_format("people").read(tmp_path, "a")
    assert np.array_equal(read.person_maps, result.person_maps) and np.array_equal(read.label_map, result.label_map)


def test_a_cutout_is_the_person_and_nothing_else(result):
    person = result.person_maps[1].numpy() > 0
    x1, y1, x2, y2 = result.window(1)
    pixels = np.array(result.cutout(1, PHOTO))
    assert pixels.shape == (y2 - y1, x2 - x1, 4)
    assert np.array_equal(pixels[..., 3] == 255, person[y1:y2, x1:x2]) and (pixels[..., 3] == 255).sum() == person.sum()
    assert np.array_equal(pixels[..., :3], PHOTO[y1:y2, x1:x2])
    assert np.array_equal(np.array(result.crop(1, PHOTO)), PHOTO[y1:y2, x1:x2])


@pytest.mark.parametrize("box", [(-5.5, -2, 3.2, 4), (29.9, 19.9, 40, 40), (50, 50, 60, 60), (4, 4, 4, 4)])
def test_a_crop_lies_in_the_picture_and_has_pixels(box, result):
    result.boxes[0], result.person_maps[0] = torch.tensor(box), 0
    x1, y1, x2, y2 = result.window(0)
    assert 0 <= x1 < x2 <= 30 and 0 <= y1 < y2 <= 20
    assert result.crop(0, PHOTO).size == (x2 - x1, y2 - y1)


def test_people_whom_nobody_sees_have_no_cutout(result, tmp_path):
    result.instance_map[result.instance_map == 2] = 0
    assert result.shown == [0, 2]
    paths = result.save(tmp_path, "a", PHOTO, kinds=["people", "cutouts"])
    assert names(paths) == sorted(
        ["a.json", "a_cutout_1.png", "a_cutout_3.png", *(f"a_person_{i}.png" for i in (1, 2, 3))]
    )


def load(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def test_pycocotools_loads_people_and_parts_of_all_pictures(result, tmp_path):
    results = {"x/a.jpg": result, "empty.png": make_result(0), "b.png": make_result(2)}
    records = [coco_file.coco_record(one, name) for name, one in results.items()]
    path = tmp_path / "coco.json"
    path.write_text("".join(coco_file.merge(records, result.label_set)))
    assert coco_file.is_coco_file(path)
    coco = load(path)
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == list(results)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [entry["id"] for entry in annotations] == list(range(1, len(annotations) + 1))
    for number, one in enumerate(results.values(), 1):
        people = coco.loadAnns(coco.getAnnIds(imgIds=number, catIds=coco.getCatIds(catNms="person")))
        assert len(people) == len(one)
        for entry, person in zip(people, one.person_maps.numpy(), strict=True):
            assert np.array_equal(coco.annToMask(entry), person > 0) and entry["area"] == (person > 0).sum()
            parts = [part for part in annotations if part.get("person") == entry["id"]]
            assert {part["image_id"] for part in parts} == {number}
            for part in parts:
                assert np.array_equal(coco.annToMask(part), person == part["category_id"] - 100)
            assert sorted(p["category_id"] - 100 for p in parts) == [k for k in np.unique(person) if k]
    assert coco.loadCats(113)[0]["name"] == "Face"


def test_a_coco_file_of_nobody_loads(tmp_path):
    (tmp_path / "coco.json").write_text("".join(coco_file.merge([], make_result(0).label_set)))
    assert load(tmp_path / "coco.json").getImgIds() == []


def test_polygons_have_the_parts_of_the_people_in_the_picture(result, tmp_path):
    result.instance_map[result.instance_map == 3] = 0
    result.save(tmp_path, "a", PHOTO, kinds=["polygons"])
    record = json.loads((tmp_path / "a_polygons.json").read_text())
    assert [person["instance"] for person in record["people"]] == [1, 2]
    first = record["people"][0]["parts"]
    assert [part["label"] for part in first] == [1, 2]  # two rectangles of 10 x 7 and 10 x 8 pixels
    assert first[0]["outlines"] == [[[0, 3], [10, 3], [10, 10], [0, 10]]]
    code = coco_mask.frPyObjects([np.ravel(first[1]["outlines"][0]).tolist()], 20, 30)
    assert coco_mask.area(code)[0] == 80


def test_probabilities_are_half_precision_arrays(result, tmp_path):
    result.save(tmp_path, "a", PHOTO, kinds=["probabilities"])
    with np.load(tmp_path / "a_probabilities.npz") as arrays:
        assert arrays["people"].dtype == arrays["whole"].dtype == np.float16
        assert np.abs(arrays["people"] - result.probabilities.people.numpy()).max() <= 2**-12
        assert np.array_equal(arrays["windows"], result.probabilities.windows.numpy())
        assert arrays["whole_size"].tolist() == [24, 32]


def test_probabilities_follow_people_and_labels(result):
    kept = result[[2, 0]].probabilities
    assert torch.equal(kept.people, result.probabilities.people[[2, 0]])
    body = result.remap("body")
    head = [result.label_set.names.index(name) for name in ("Hat", "Hair", "Sunglasses", "Face")]
    index = body.label_set.names.index("Head")
    assert torch.allclose(body.probabilities.people[:, index], result.probabilities.people[:, head].sum(1))
    assert torch.allclose(body.probabilities.people.sum(1), torch.ones(3, 4, 5))
    assert torch.equal(result.cpu().probabilities.whole, result.probabilities.whole)


@pytest.mark.parametrize("part", ["Hair", "hair", 2])
def test_the_mask_of_a_part(part, result):
    assert torch.equal(result.mask(part), result.label_map == 2)
    assert torch.equal(result.mask(part, person=0), result.person_maps[0] == 2)


def test_the_mask_of_people(result):
    assert torch.equal(result.mask(), result.instance_map > 0)
    assert torch.equal(result.mask(person=1), result.person_maps[1] > 0)
    with pytest.raises(ValueError, match=r"CIHP has no part 'Hiar'; did you mean 'hair'\?"):
        result.mask("Hiar")
    with pytest.raises(ValueError, match="has no part 20; its labels are Background, Hat"):
        result.mask(20)
    with pytest.raises(IndexError):
        result.mask("Hair", person=3)


def test_supervision_gets_boxes_masks_and_scores(result, monkeypatch):
    library = types.SimpleNamespace(Detections=lambda **fields: fields)
    monkeypatch.setitem(__import__("sys").modules, "supervision", library)
    fields = result.to_supervision()
    assert np.array_equal(fields["mask"], result.person_maps.numpy() > 0) and fields["mask"].dtype == bool
    assert np.array_equal(fields["xyxy"], result.boxes) and np.array_equal(fields["confidence"], result.scores)
    assert fields["class_id"].tolist() == [0, 0, 0] and fields["data"]["class_name"].tolist() == ["person"] * 3


def test_supervision_itself_takes_them(result):
    supervision = pytest.importorskip("supervision", reason="the library supervision is not installed")
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 3
    assert len(detections[detections.confidence > 0.5]) == 2 and len(make_result(0).to_supervision()) == 0


def test_without_supervision_one_line_names_it(result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        result.to_supervision()


ORIGIN = {"weights": "1", "settings": "2", "source": [3, 4]}


def saved(result, folder, kinds=("labels", "cutouts"), origin=ORIGIN):
    return saving.save(result, folder, "a", Image.fromarray(PHOTO), kinds, origin)


def test_a_saved_result_is_known_by_its_origin(result, tmp_path):
    saved(result, tmp_path)
    assert saving.is_saved(tmp_path, "a", ORIGIN)
    for key in ORIGIN:
        assert not saving.is_saved(tmp_path, "a", ORIGIN | {key: "other"})
    assert not saving.is_saved(tmp_path, "b", ORIGIN)


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_result_with_a_damaged_file_is_not_whole(damage, result, tmp_path):
    for path in saved(result, tmp_path)[:-1]:
        data = path.read_bytes()
        path.unlink()
        if damage == "short":
            path.write_bytes(data[:-1])
        assert not saving.is_saved(tmp_path, "a", ORIGIN)
        path.write_bytes(data)
    assert saving.is_saved(tmp_path, "a", ORIGIN)


@pytest.mark.parametrize("stop", range(6))
def test_whatever_stops_it_leaves_results_that_are_not_whole(stop, result, tmp_path, monkeypatch):
    def write(path, data, write=saving._write, left=[stop]):  # noqa: B006  (counts down)
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return write(path, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving, "_write", write)
        saved(result, tmp_path)
    assert len(list(tmp_path.iterdir())) == stop and not saving.is_saved(tmp_path, "a", ORIGIN)
    assert all(saving.is_result(path) for path in tmp_path.iterdir())


def test_files_of_people_who_are_no_longer_there_are_deleted(result, tmp_path):
    (tmp_path / "a_cutout_7.png").write_bytes(b"not of an earlier result")
    saved(result, tmp_path)
    saved(result[:1], tmp_path, kinds=("labels", "cutouts", "people"))
    assert names(tmp_path.iterdir()) == [
        *("a.json", "a_cutout_1.png", "a_cutout_7.png", "a_labels.png", "a_person_1.png")
    ]
    assert saving.is_saved(tmp_path, "a", ORIGIN)
