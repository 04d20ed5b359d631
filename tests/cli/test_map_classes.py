"""python -m rpcnn.evaluate --predictions DIR --map-classes NAME: maps of other systems on our truth."""

import json

import numpy as np
import pytest

from rpcnn.data.datasets import open_split
from rpcnn.data.painted.scene import write_cihp
from rpcnn.evaluate import main
from rpcnn.formats import Prediction, make_format
from rpcnn.label_schemes import SCHEMES, find_scheme

MEASURED = ("miou", "pixel_accuracy", "mean_accuracy", "ap_p_50", "ap_p_vol", "pcp_50", "ap_r_50", "ap_h_50", "ap_bbox")
SEMANTIC = MEASURED[:3]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_cihp(root, train=1, val=4, size=(64, 80), seed=3, difficulty=0.3, workers=1)
    return root


def write_rival(scheme, folder, scenes, format="people", change=lambda labels, noise: labels):
    """The truth as a rival writes it that makes no mistake: each pixel has a label that it may have by its table."""
    dataset, format = open_split(scenes, "val"), make_format(format)
    noise = np.random.default_rng(0)
    names = list(scheme.label_set.names)
    choices = {label: [names.index(name) for name, sources in scheme.meanings().items() if source in sources]
               for label, source in enumerate(dataset.labels.names)}  # fmt: skip

    def as_rival(maps):
        written = np.zeros_like(maps)
        for label in np.unique(maps):
            places = maps == label
            written[places] = noise.choice(choices.get(int(label)) or [0], places.sum())
        return change(written, noise)

    for i, entry in enumerate(dataset.entries):
        truth = dataset.load(i, with_image=False)
        people = truth["person_maps"].numpy()
        boxes = truth["boxes"].numpy().astype(float)
        label_map, person_maps = as_rival(truth["label_map"].numpy()), as_rival(people)
        format.write(folder, entry.id, Prediction(label_map, person_maps, np.ones(len(people)), boxes=boxes))
    format.finish(folder)


def evaluate(folder, scenes, name, *more):
    return main(
        ["--predictions", str(folder), "--data-root", str(scenes), "--map-classes", name, "--workers", "1", *more]
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_a_rival_without_a_mistake_scores_100(name, scenes, tmp_path, capsys):
    write_rival(SCHEMES[name], tmp_path / "maps", scenes)
    results = evaluate(tmp_path / "maps", scenes, name, "--output", str(tmp_path / "out"))
    assert {key: results[key] for key in MEASURED} == pytest.approx(dict.fromkeys(MEASURED, 100))
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["map_classes"] == name and len(stored["classes"]) == len(results["iou"])
    printed = capsys.readouterr().out
    assert all(f"rpcnn: {line}" in printed for line in stored["notes"])


def test_label_maps_alone_have_the_semantic_metrics(scenes, tmp_path):
    write_rival(SCHEMES["atr"], tmp_path, scenes, format="labels")
    results = evaluate(tmp_path, scenes, "atr")
    assert {key: results[key] for key in SEMANTIC} == pytest.approx(dict.fromkeys(SEMANTIC, 100))
    assert {results[key] for key in MEASURED[3:]} == {None}


def test_part_instances_of_nobody_are_not_scored_in_merged_classes(scenes, tmp_path):
    write_rival(SCHEMES["viton"], tmp_path, scenes, format="cihp")
    results = evaluate(tmp_path, scenes, "viton")
    assert results["miou"] == pytest.approx(100) and results["ap_r_50"] is None


def test_mistakes_cost(scenes, tmp_path):
    def wrong(labels, noise):
        return np.where(noise.random(labels.shape) < 0.2, 0, labels)

    write_rival(SCHEMES["atr"], tmp_path, scenes, change=wrong)
    results = evaluate(tmp_path, scenes, "atr")
    assert 30 < results["miou"] < 90 and results["pixel_accuracy"] < 100


def test_left_for_right_is_wrong(scenes, tmp_path):
    flip = SCHEMES["lip"].label_set.flip_table()
    write_rival(SCHEMES["lip"], tmp_path, scenes, change=lambda labels, noise: flip[labels])
    results = evaluate(tmp_path, scenes, "lip")
    assert 0 in results["iou"] and results["miou"] < 90


def test_a_table_of_ones_own(scenes, tmp_path):
    table = tmp_path / "mine.toml"
    table.write_text(
        'names = ["nothing", "head", "rest"]\n[may_be]\nhead = ["Hat", "Hair", "Face", "Sunglasses"]\n'
        'rest = ["UpperClothes", "Pants", "Coat", "Dress", "Skirt"]\n'
    )
    write_rival(find_scheme(str(table)), tmp_path / "maps", scenes, format="instances")
    results = evaluate(tmp_path / "maps", scenes, str(table))
    assert results["miou"] == pytest.approx(100) and len(results["iou"]) == 3


def test_values_that_the_table_lacks_are_named(scenes, tmp_path):
    write_rival(SCHEMES["atr"], tmp_path, scenes, change=lambda labels, noise: np.where(labels == 4, 18, labels))
    with pytest.raises(SystemExit, match=r"000000\d: label map: label 18 is none of the 18 of ATR"):
        evaluate(tmp_path, scenes, "atr")


def test_an_unknown_table_is_named(scenes, tmp_path):
    write_rival(SCHEMES["atr"], tmp_path, scenes)
    with pytest.raises(SystemExit, match=r"must be lip, atr, .* or a \.toml file, got 'segformer'"):
        evaluate(tmp_path, scenes, "segformer")
