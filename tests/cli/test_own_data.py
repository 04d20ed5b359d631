"""Custom data on the command line, from training to prediction: a folder without code, and a data set class."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from helpers.commands import TINY
from helpers.data_trees import write_folder_image
from PIL import Image

from rpcnn.evaluate import main as evaluate
from rpcnn.labels import CIHP
from rpcnn.predict import main as predict
from rpcnn.runtime.checkpoint import load_weights
from rpcnn.train import main as train

BLOCKS = "helpers.own_people:Blocks"
SMALL = [word for word in TINY if word not in ("--data.options", "train=8", "val=3", "short_side=[96, 128]")]
SMALL += ["--iterations", "2"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Four pictures to train on and two to evaluate on, with five classes."""
    root = tmp_path_factory.mktemp("own")
    for split, count in (("train", 4), ("val", 2)):
        for k in range(count):
            people = {1: (1 + k, 10, 10, 50, 80), 2: (4, 60 + k, 20, 100, 90)}
            write_folder_image(root, f"p{k}", people, 96, 128, split)
    return root


@pytest.fixture(scope="module")
def run(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "own"
    arguments = ["--data.dataset", "folder", "--data-root", str(own), "--output", str(folder)]
    return train(["painted", *SMALL, *arguments])


def test_the_classes_are_those_of_the_folder(run):
    weights = load_weights(run)
    assert weights.label_set.names == ("Background", "Head", "Torso", "Left-arm", "Right-arm")
    assert weights.label_set.pairs == ((3, 4),)
    assert weights.state["parsing_head.logits.bias"].shape == weights.state["gse.logits.bias"].shape == (5,)
    results = json.loads((run / "results.json").read_text())
    assert results["images"] == 2 and len(results["iou"]) == 5
    assert len(list((run / "pictures").glob("*.png"))) == 1


def test_evaluation_reproduces_training_and_saves_predictions(run, own, tmp_path, capsys):
    arguments = ["--device", "cpu", "--data.workers", "0", "--run.save-predictions", "people"]
    results = evaluate([str(run), *arguments, "--output", str(tmp_path)])
    reported = json.loads((run / "results.json").read_text())
    assert results["miou"] == pytest.approx(reported["miou"])
    again = evaluate(["--predictions", str(tmp_path / "predictions"), "--data-root", str(own), "--workers", "1"])
    assert again["miou"] == pytest.approx(results["miou"]) and "Right-arm" in capsys.readouterr().out


def test_a_model_of_other_classes_is_not_evaluated_on_it(run, tmp_path):
    arguments = ["--data.dataset", BLOCKS, "--output", str(tmp_path), "--device", "cpu"]
    with pytest.raises(SystemExit, match=r"the model has the 5 labels of five parts, .* the 4 of blocks"):
        evaluate([str(run), *arguments])


def test_predictions_have_the_classes_and_colors(run, own, tmp_path):
    picture = own / "val/images/p0.jpg"
    predict([str(picture), "--weights", str(run), "--output", str(tmp_path), "--device", "cpu"])
    labels = Image.open(tmp_path / "p0_labels.png")
    assert labels.size == (128, 96) and np.array(labels).max() < 5
    assert labels.getpalette()[3:6] == [255, 128, 0]
    record = json.loads((tmp_path / "p0.json").read_text())
    assert record["label_set"] == "five parts" and len(record["labels"]) == 5


def test_a_missing_evaluation_split_is_named_before_training(own, tmp_path):
    arguments = ["--data.dataset", "folder", "--data-root", str(own), "--data.eval-split", "test"]
    with pytest.raises(SystemExit, match=r"rpcnn: Folder: no folder .*test/images"):
        train(["painted", *SMALL, *arguments, "--output", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_training_on_no_images_ends_in_one_line(own, tmp_path):
    shutil.copytree(own, tmp_path / "own")
    for path in (tmp_path / "own/train/images").iterdir():
        path.unlink()
    arguments = ["--data.dataset", "folder", "--data-root", str(tmp_path / "own"), "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=r"rpcnn: Folder: there are no images in the split train of .*own") as stop:
        train(["painted", *SMALL, *arguments])
    assert stop.value.code == 2


def test_a_custom_class_trains_evaluates_and_predicts(tmp_path):
    arguments = ["--data.dataset", BLOCKS, "--data.options", "count=4", "--data-root", str(tmp_path)]
    run = pathlib.Path(train(["painted", *SMALL, *arguments, "--output", str(tmp_path / "run")]))
    assert load_weights(run).label_set.num_classes == 4 != CIHP.num_classes
    options = [str(run), "--device", "cpu", "--output", str(tmp_path / "again")]
    with pytest.raises(SystemExit, match=f"data.dataset: the weights name {BLOCKS}, whose code would run"):
        evaluate(options)
    assert evaluate([*options, "--data.dataset", BLOCKS])["images"] == 4
    results = evaluate([*options, "--data.dataset", BLOCKS, "--data.options", "count=3"])
    assert results["images"] == 3
    pictures = sorted((run / "pictures").glob("*.png"))
    predict([str(pictures[0]), "--weights", str(run), "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert json.loads((tmp_path / "out" / f"{pictures[0].stem}.json").read_text())["label_set"] == "blocks"


def test_a_wrong_data_set_ends_training_in_one_line(tmp_path):
    output = ["--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=r"rpcnn: data.dataset: helpers.own_people has no 'Blcks'; did you mean"):
        train(["painted", *SMALL, "--data.dataset", "helpers.own_people:Blcks", *output])
    with pytest.raises(SystemExit, match=r"rpcnn: data.options: Painted takes .*, got 'trian'; did you mean 'train'"):
        train(["painted", *TINY, "--data.options", "trian=4", *output])
