"""Results in the labels of other pipelines."""

import json

import numpy as np
import pytest
import torch
from helpers.models import NUM_CLASSES
from PIL import Image

from rpcnn.inference.results import ParsingResult
from rpcnn.label_schemes import SCHEMES, common_classes, find_scheme
from rpcnn.labels import CIHP, LabelSet


def result(people=1):
    label_map = torch.arange(20, dtype=torch.uint8).repeat(2, 1)
    scores = torch.linspace(1, 0.5, people) if people else torch.zeros(0)
    return ParsingResult(
        boxes=torch.tensor([[0.0, 0, 20, 2]]).repeat(people, 1),
        box_scores=scores,
        iou_scores=scores,
        scores=scores,
        person_maps=label_map[None].repeat(people, 1, 1),
        label_map=label_map,
        instance_map=(label_map > 0).to(torch.uint8) * min(people, 1),
        label_set=CIHP,
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_every_label_of_cihp_is_named_or_said_to_be_lost(name):
    scheme = SCHEMES[name]
    table = scheme.table(CIHP)
    gone = [CIHP.names[label] for label in range(1, 20) if table[label] == 0]
    assert all(part.lower() in scheme.lost.lower() or part.lower() + "s" in scheme.lost.lower() for part in gone)
    assert set(scheme.becomes.values()) <= set(scheme.label_set.names) and scheme.source
    assert table[255] == 255 and table[0] == 0


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("lip", "UpperClothes", "Upper-clothes"),
        ("lip", "Torso-skin", "Background"),
        ("atr", "Coat", "Upper-clothes"),
        ("atr", "Right-shoe", "Right-shoe"),
        ("pascal_person_part", "Hair", "Head"),
        ("body", "Skirt", "Lower-body"),
        ("viton", "Sunglasses", "Face"),
        ("viton", "Torso-skin", "Background"),
        ("schp_atr", "Left-shoe", "Left-shoe"),
        ("densepose_parts", "Left-arm", "Lower-arm-left"),
        ("sapiens", "Right-leg", "Right_Lower_Leg"),
    ],
)
def test_labels_become_what_the_scheme_says(name, part, expected):
    remapped = result().remap(name)
    column = CIHP.names.index(part)
    number = remapped.label_set.names.index(expected)
    assert remapped.label_map[0, column] == number and remapped.person_maps[0, 0, column] == number
    assert remapped.label_map.dtype == remapped.person_maps.dtype == torch.uint8


def test_nobody_and_the_same_labels_stay():
    assert len(result(0).remap("lip")) == 0
    same = SCHEMES["lip"].table(SCHEMES["lip"].label_set)
    assert np.array_equal(same, np.arange(256))


def test_left_and_right_of_every_scheme_are_pairs():
    for scheme in SCHEMES.values():
        assert scheme.label_set.unpaired_sides() == []


def test_a_file_of_ones_own_and_the_saved_result(tmp_path):
    (tmp_path / "mine.toml").write_text('names = ["Background", "skin"]\n[becomes]\nface = "skin"\n')
    remapped = result().remap(str(tmp_path / "mine.toml"))
    remapped.save(tmp_path, "a")
    labels = np.asarray(Image.open(tmp_path / "a_labels.png"))
    assert labels[0, 13] == 1 and labels.sum() == 2
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["labels"] == ["Background", "skin"] and record["people"][0]["parts"] == ["skin"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names = 3", "names must be a list of 2 to 255 texts"),
        ('names = ["a", "a"]', "names must differ"),
        ('names = ["a", "b"]', r"\[becomes\] must be a table"),
        ('names = ["a", "b"]\nbecame = 3', "a key must be names, becomes or may_be, got 'became'"),
        ('names = ["a", "b"]\n[may_be]\nc = ["Face"]', "may_be.c must be named in names"),
        ('names = ["a", "b"]\n[may_be]\nb = "Face"', "may_be.b must be a list of texts"),
        ('names = ["a", "b"]\n[becomes]\nFace = "c"', "becomes.Face must be one of names, got 'c'"),
        ("names = [", "is not TOML"),
    ],
)
def test_wrong_files_are_named(text, message, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_scheme(str(tmp_path / "mine.toml"))


def test_unknown_names_and_foreign_labels_are_named():
    with pytest.raises(ValueError, match=r"must be lip, atr, .*, body or a \.toml file, got 'coco'"):
        find_scheme("coco")
    others = LabelSet("others", tuple(f"part {n}" for n in range(NUM_CLASSES)))
    with pytest.raises(ValueError, match="LIP can be made of none of the labels of others"):
        SCHEMES["lip"].table(others)


def test_instances_are_seen_in_a_viewer_and_read_as_numbers():
    picture = result().instance_image()
    assert picture.mode == "P" and set(np.unique(np.asarray(picture))) == {0, 1}
    assert np.asarray(picture.convert("RGB")).max() > 100


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_every_name_of_a_scheme_is_a_label(scheme):
    meant = scheme.meanings()
    assert set(meant) <= set(scheme.label_set.names) and scheme.label_set.names[0] == "Background"
    known = {name.lower() for name in (*CIHP.names, "Jumpsuits")}
    assert {name.lower() for names in meant.values() for name in names} | {n.lower() for n in scheme.becomes} <= known


@pytest.mark.parametrize(
    ("name", "classes", "values"),
    [
        ("atr", 16, {"Upper-clothes": "UpperClothes+Coat", "Belt": "Background", "Left-arm": "Left-arm"}),
        ("lip", 19, {"Coat": "Coat", "Jumpsuits": "Background"}),
        ("pascal_person_part", 3, {"Head": "Head", "Upper-arms": "Glove+14 more", "Lower-legs": "Glove+14 more"}),
        ("viton", 13, {"Noise": "Glove+Scarf", "Bottom": "Pants+Skirt"}),
        ("sapiens", 13, {"Left_Hand": "Left-arm", "Left_Upper_Arm": "Left-arm", "Tongue": "Torso-skin+Face"}),
        ("densepose_parts", 3, {"Head": "Head", "Torso": "Glove+14 more"}),
    ],
)
def test_classes_that_both_can_tell_apart(name, classes, values):
    scheme = SCHEMES[name]
    common = common_classes(scheme, CIHP)
    assert common.labels.num_classes == classes
    for label, expected in values.items():
        number = common.from_prediction[scheme.label_set.names.index(label)]
        assert common.labels.names[number] == expected
    assert (common.from_prediction[scheme.label_set.num_classes :] == 255).all() and common.from_truth[255] == 255


@pytest.mark.parametrize("name", SCHEMES)
def test_a_right_prediction_is_never_counted_as_wrong(name):
    scheme, common = SCHEMES[name], common_classes(SCHEMES[name], CIHP)
    names = list(CIHP.names)
    for label, sources in scheme.meanings().items():
        predicted = common.from_prediction[scheme.label_set.names.index(label)]
        assert {common.from_truth[names.index(source)] for source in sources if source in names} <= {predicted}


def test_what_is_merged_left_out_or_background_is_said():
    lines = "\n".join(common_classes(SCHEMES["atr"], CIHP).lines)
    assert "scored as one class: UpperClothes, Coat (of CIHP) = Upper-clothes (of ATR)" in lines
    assert "not counted, since ATR has no such label: Glove, Socks, Torso-skin" in lines
    assert "taken for background, since CIHP has no such label: Belt, Bag" in lines


def test_label_sets_without_a_common_class_are_refused():
    others = LabelSet("others", ("Background", "tree"))
    with pytest.raises(ValueError, match="map-classes: ATR and others have no class in common but the background"):
        common_classes(SCHEMES["atr"], others)
