"""Custom images and classes: label maps or a COCO file, and labels.toml."""

import json
import pickle

import numpy as np
import pytest
from helpers.data_trees import LABELS_TOML, write_folder_image, write_picture, write_png
from pycocotools import mask as codes

from rpcnn.data.__main__ import main
from rpcnn.data.check import check_folder
from rpcnn.data.coco import CocoFile
from rpcnn.data.files import DataFault
from rpcnn.data.folder import Folder
from rpcnn.data.labels_file import read_labels_file
from rpcnn.data.transforms import TrainTransform, flip_sample
from rpcnn.labels import LabelSet

PEOPLE = {1: (1, 4, 6, 20, 30), 7: (3, 30, 10, 50, 39)}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path):
    for stem in ("a", "b", "c"):
        write_folder_image(tmp_path / "own", stem, PEOPLE)
    return tmp_path / "own"


def test_the_labels_file_names_classes_colors_and_pairs(tree):
    labels, ignore = read_labels_file(tree / "labels.toml")
    assert (labels.name, labels.num_classes, labels.pairs, ignore) == ("five parts", 5, ((3, 4),), 9)
    assert labels.palette[1] == (255, 128, 0) and labels.palette[2] == (0, 128, 0)
    (tree / "labels.toml").write_text('names = ["nothing", "body"]')
    labels, ignore = read_labels_file(tree / "labels.toml")
    assert (labels.name, labels.names, labels.pairs, ignore) == ("own", ("nothing", "body"), (), 255)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("names =", "nams ="), "a key must be one of name, names, .*, got 'nams'; did you mean 'name"),
        (('"Head"', "3"), r"names must be a list of 2 to 255 different names, the background first, got \["),
        (('"Head", "Torso"', '"Head", "Head"'), "names must be a list of 2 to 255 different names"),
        (('"Right-arm"]]', '"Right-am"]]'), "a name in pairs must be one of names, .*, got 'Right-am'; did you mean"),
        (('"Right-arm"]]', '"Left-arm"]]'), "a name in pairs must be in one of them only, got 'Left-arm'"),
        (('"Right-arm"]]', "]]"), r"pairs must be a list of pairs of names, got \['Left-arm'\]"),
        (("#ff8000", "orange"), "colors.Head must be \"#RRGGBB\", got 'orange'"),
        (("Head =", "Hed ="), "a name in colors must be one of names, got 'Hed'; did you mean 'Head'"),
        (("ignore = 9", "ignore = 4"), "ignore must be a value of no class, 5 to 255, got 4"),
        (("ignore = 9", "ignore = true"), "ignore must be a value of no class, 5 to 255, got True"),
        (('name = "five parts"', "name = 5"), "name must be a text, got 5"),
        (("ignore = 9", "ignore ="), "is not TOML"),
    ],
)
def test_labels_file_errors_name_key_expected_and_got(change, message, tmp_path):
    assert change[0] in LABELS_TOML
    (tmp_path / "labels.toml").write_text(LABELS_TOML.replace(*change))
    with pytest.raises(ValueError, match=f"labels.toml: {message}"):
        read_labels_file(tmp_path / "labels.toml")


def test_person_maps_are_parts_masked_by_instance_id(tree):
    dataset = Folder(tree)
    assert dataset.ids == ["a", "b", "c"] and not dataset.faults
    sample = dataset[1]
    assert sample["id"] == "b" and sample["boxes"].tolist() == [[4, 6, 20, 30], [30, 10, 50, 39]]
    assert sample["person_maps"].amax((1, 2)).tolist() == [1, 3]
    assert len(pickle.loads(pickle.dumps(dataset))) == 3


def test_flip_swaps_the_pairs_of_the_labels_file(tree):
    dataset = Folder(tree)
    mirrored = flip_sample(dataset[0], dataset.labels)
    assert mirrored["person_maps"].amax((1, 2)).tolist() == [1, 4] and mirrored["label_map"][20, 20] == 4


def test_without_person_maps_an_image_is_one_person(tmp_path):
    write_folder_image(tmp_path, "a", PEOPLE, person_map=False)
    write_folder_image(tmp_path, "b", {}, person_map=False)
    dataset = Folder(tmp_path)
    assert dataset[0]["boxes"].tolist() == [[4, 6, 50, 39]] and len(dataset[1]["boxes"]) == 0


def test_check_notes_a_missing_people_folder_and_twin_pictures(tmp_path):
    write_folder_image(tmp_path, "a", PEOPLE, person_map=False)
    write_picture(tmp_path / "train/images/a.png")
    assert check_folder(tmp_path).notes == [
        ("people", f"{tmp_path / 'train/people'} is missing: every picture is one person"),
        ("a", f"{tmp_path / 'train/images/a.jpg'} is not used: a.png has its name"),
    ]


def test_left_and_right_without_a_pair_are_named(tree, caplog):
    (tree / "labels.toml").write_text('names = ["Background", "Head", "Torso", "Left-limb", "right-Limb"]\nignore = 9')
    message = "Left-limb and right-Limb are in no pair: mirror images do not exchange them"
    assert ("pairs", message) in check_folder(tree).notes
    labels = Folder(tree).labels
    TrainTransform(64, 64, labels, flip_prob=0)
    assert "mirror" not in caplog.text
    TrainTransform(64, 64, labels)
    assert caplog.text.count("own: mirror images do not exchange Left-limb and right-Limb") == 1


def test_ignored_values_become_255_and_add_no_person(tree):
    labels = np.zeros((40, 60), np.uint8)
    labels[:10, :10], labels[30:, 50:] = 2, 9
    write_png(tree / "train/parts/a.png", labels)
    (tree / "train/people/a.png").unlink()
    assert "a" in Folder(tree).faults
    for path in (tree / "train/people").iterdir():
        path.unlink()
    (tree / "train/people").rmdir()
    sample = Folder(tree)[0]
    assert sample["boxes"].tolist() == [[0, 0, 10, 10]] and sample["label_map"][39, 59] == 255


def test_every_fault_of_a_folder_is_named_with_its_path(tree):
    write_folder_image(tree, "d", {1: (5, 0, 0, 10, 10)})
    write_folder_image(tree, "e", PEOPLE)
    write_folder_image(tree, "f", {})
    write_png(tree / "train/people/a.png", np.zeros((40, 61)))
    (tree / "train/parts/b.png").unlink()
    (tree / "train/people/b.png").unlink()
    (tree / "train/images/e.jpg").write_bytes(b"no picture")
    write_png(tree / "train/people/f.png", np.full((40, 60), 3))
    write_png(tree / "train/parts/z.png", np.zeros((40, 60)))
    report = check_folder(tree)
    faults, notes = dict(report.faults), dict(report.notes)
    assert report.images == 6 and set(faults) == {"a", "b", "d", "e"} == set(Folder(tree).faults)
    assert f"{tree / 'train/people/a.png'}: is 61 x 40 pixels, its image 60 x 40" in faults["a"]
    assert faults["b"] == f"{tree / 'train/parts/b.png'} is missing; {tree / 'train/people/b.png'} is missing"
    assert f"{tree / 'train/parts/d.png'}: label values must be below 5 or 9, got [5]" in faults["d"]
    assert f"{tree / 'train/images/e.jpg'}: cannot be read" in faults["e"]
    assert "person 3 has 2400 pixels and no part" in notes["f"] and "belongs to no image" in notes["z"]


def test_missing_parts_of_a_folder_are_errors(tree):
    with pytest.raises(FileNotFoundError, match=r"Folder: no folder .*val/images; root must be"):
        Folder(tree, "val")
    with pytest.raises(ValueError, match="Folder: split must be one of train, val, test, got 'holdout'"):
        Folder(tree, "holdout")
    (tree / "train.json").write_text("{}")
    with pytest.raises(ValueError, match=r"parts and .*train.json must not both be there"):
        Folder(tree)
    (tree / "train.json").unlink()
    (tree / "train/parts").rename(tree / "train/labels")
    with pytest.raises(DataFault, match=r"parts and .*train.json are both missing"):
        Folder(tree)
    (tree / "labels.toml").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels.toml: does not exist"):
        Folder(tree)


def mask(y1, y2, x1, x2):
    values = np.zeros((40, 60), np.uint8, order="F")
    values[y1:y2, x1:x2] = 1
    return values


def compressed(values):
    code = codes.encode(values)
    return {"size": code["size"], "counts": code["counts"].decode()}


def uncompressed(values):
    flat = values.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": list(values.shape), "counts": [0, *counts] if flat[0] else counts}


def coco():
    part = lambda label, segmentation: {"category_id": label, "segmentation": segmentation}
    image = {"height": 40, "width": 60}
    polygon, corner = [8, 8, 16, 8, 16, 16, 8, 16], mask(0, 2, 0, 2)
    return {
        "categories": [{"id": 1, "name": "Head"}],
        "images": [{"id": 5, "file_name": "b.jpg"} | image, {"id": 6, "file_name": "a.jpg"} | image],
        "annotations": [
            {"image_id": 5, "parts": [part(2, compressed(mask(5, 30, 5, 30))), part(1, [polygon])]},
            {"image_id": 5, "parts": [part(4, uncompressed(mask(0, 20, 20, 50))), part(9, compressed(corner))]},
            {"image_id": 5},
        ],
    }


@pytest.fixture
def coco_tree(tree):
    for name in ("parts", "people"):
        for path in (tree / "train" / name).iterdir():
            path.unlink()
        (tree / "train" / name).rmdir()
    (tree / "train.json").write_text(json.dumps(coco()))
    return tree


def test_a_coco_file_gives_people_who_overlap(coco_tree):
    dataset = Folder(coco_tree)
    assert dataset.ids == ["b", "a"] and not dataset.faults
    sample = dataset[0]
    assert sample["person_maps"].shape == (2, 40, 60)
    assert sample["boxes"].tolist() == [[5, 5, 30, 30], [0, 0, 50, 20]]
    first, second = sample["person_maps"].numpy()
    assert np.array_equal(first == 1, mask(8, 16, 8, 16)) and (first == 2).sum() == 25 * 25 - 64
    assert (second == 4).sum() == 20 * 30 and (second == 255).sum() == 4
    assert sample["label_map"][10, 25] == 4 and len(dataset[1]["boxes"]) == 0
    report = check_folder(coco_tree)
    assert "annotations[2] has no parts: left out" in dict(report.notes)["b"]
    assert "not in the list" in dict(report.notes)["c"] and not report.faults


def broken(path, value):
    record = coco()
    *way, last = path
    at = record
    for key in way:
        at = at[key]
    at[last] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("annotations", 0, "parts", 1, "category_id"), 5, r"category_id: must be in 1\.\.4 or 9, got 5"),
        (("annotations", 0, "parts", 1, "segmentation"), [[1, 2, 3, 4]], "a polygon must have at least three points"),
        (("annotations", 0, "parts", 1, "segmentation"), "mask", "segmentation: must be polygons or run lengths"),
        (("annotations", 0, "parts", 1, "segmentation", 0, 3), "x", "segmentation: must be polygons or run lengths"),
        (("annotations", 0, "parts", 0, "segmentation", "counts"), "0", "run lengths must make up the 2400 pixels"),
        (("annotations", 1, "parts", 0, "segmentation", "counts"), [1, 2], "run lengths must make up the 2400 pixels"),
        (("annotations", 1, "parts", 0, "segmentation", "counts"), [-1, 2401], "segmentation: must be"),
        (("annotations", 1, "parts", 0, "segmentation", "size"), [4, 6], r"size: must be the image's \[40, 60\]"),
        (("annotations", 0, "parts", 0), {}, r"annotations\[0\]\.parts\[0\]: must have category_id and segmentation"),
        (("images", 0, "width"), 61, "image b.jpg: is 61 x 40 pixels, its image 60 x 40"),
    ],
)
def test_a_fault_in_a_coco_file_is_named(path, value, message, coco_tree):
    (coco_tree / "train.json").write_text(json.dumps(broken(path, value)))
    dataset = Folder(coco_tree)
    assert dataset.ids == ["a"]
    with pytest.raises(ValueError, match=f"train.json: .*{message}"):
        raise ValueError(dataset.faults["b"])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images",), {}, "must be an object with a list 'images'"),
        (("images", 1, "height"), "40", r"images\[1\]\.height must be int, got '40'"),
        (("images", 1, "file_name"), "b.png", r"images\[1\]\.file_name 'b.png' occurs twice, apart"),
        (("images", 1, "id"), 5, r"images\[1\]\.id 5 occurs twice"),
        (("images", 0, "id"), 7, r"\[0\]\.image_id 5 is no .*\[1\]\.image_id 5 is no .*\[2\]\.image_id 5 is no"),
        (("annotations",), 9 * [{"image_id": "?"}], r"annotations\[4\]\.image_id '\?' is no image's id; and 5 more$"),
        (("annotations", 0, "image_id"), 4, r"annotations\[0\]\.image_id 4 is no image's id"),
        (("categories", 0, "name"), "Had", "category 1 is 'Had', labels.toml has 'Head'"),
        (("categories", 0, "id"), 8, "category 8 is 'Head', labels.toml has 5 names, from 0"),
    ],
)
def test_an_invalid_coco_file_raises(path, value, message, coco_tree):
    (coco_tree / "train.json").write_text(json.dumps(broken(path, value)))
    with pytest.raises(ValueError, match=f"train.json: .*{message}"):
        Folder(coco_tree)


def test_people_of_plain_coco_are_no_people_with_parts(coco_tree, capsys):
    record = coco()
    for person in record["annotations"]:
        person.pop("parts", None)
        person["segmentation"] = [[8, 8, 16, 8, 16, 16]]
    (coco_tree / "train.json").write_text(json.dumps(record))
    assert main(["check", str(coco_tree)]) == 1
    assert f"train: fault: {coco_tree / 'train.json'}: no annotation has parts" in capsys.readouterr().out


def test_a_coco_file_that_is_not_json_raises(coco_tree):
    (coco_tree / "train.json").write_text("{")
    with pytest.raises(ValueError, match=r"train\.json: is not JSON"):
        Folder(coco_tree)


def test_a_changed_labels_file_makes_the_index_anew(tree):
    write_folder_image(tree, "d", {1: (5, 0, 0, 10, 10)})
    assert "d" in Folder(tree).faults
    (tree / "labels.toml").write_text(LABELS_TOML.replace('"Right-arm"]\n', '"Right-arm", "Leg"]\n'))
    assert not Folder(tree).faults and Folder(tree).labels.num_classes == 6


def coco_file(tmp_path, **image):
    record = {"images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 9} | image], "annotations": []}
    (tmp_path / "train.json").write_text(json.dumps(record))
    return CocoFile(tmp_path / "train.json", LabelSet("own", ("Background", "Head")), 255)


@pytest.mark.parametrize("change", [{"height": True}, {"height": 0}, {"width": -3}, {"width": "9"}, {"id": True}])
def test_sizes_of_a_json_are_positive_integers(change, tmp_path):
    with pytest.raises(DataFault, match=rf"train.json: images\[0\].{next(iter(change))} must be"):
        coco_file(tmp_path, **change)


def test_a_json_takes_no_memory_for_a_picture_that_cannot_be_read(tmp_path):
    file = coco_file(tmp_path, height=10**6, width=10**6)
    with pytest.raises(DataFault, match="are read only with the image"):
        file.read("a", None)
    with pytest.raises(DataFault, match="is 1000000 x 1000000 pixels, its image 9 x 6"):
        file.read("a", (6, 9))


@pytest.mark.parametrize("point", [1e9, -1e300, float("nan"), float("inf")])
def test_a_polygon_far_outside_its_picture_is_refused(point, tmp_path):
    file = coco_file(tmp_path)
    file.people["a"] = [(0, [{"category_id": 1, "segmentation": [[0, 0, 5, point, 5, 0]]}])]
    with pytest.raises(DataFault, match=r"annotations\[0\].parts\[0\].segmentation: must be polygons or run lengths"):
        file.read("a", (6, 9))
