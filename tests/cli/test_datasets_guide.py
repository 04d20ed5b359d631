"""Every snippet of docs/datasets.md, and its example."""

import json
import pathlib
import re
import shlex
import sys
import tomllib

import numpy as np
import pytest
from helpers.commands import TINY
from helpers.data_trees import write_folder_image, write_picture, write_png

from rpcnn.data.__main__ import main as data
from rpcnn.data.check import check_folder
from rpcnn.data.datasets import DATASETS
from rpcnn.data.folder import Folder
from rpcnn.data.labels_file import read_labels_file
from rpcnn.evaluate import main as evaluate
from rpcnn.predict import main as predict
from rpcnn.train import main as train

ROOT = pathlib.Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
COMMANDS = {"train": train, "evaluate": evaluate, "predict": predict, "data": data}
SMALL = [word for word in TINY if word not in ("--data.options", "train=8", "val=3", "short_side=[96, 128]")]
PEOPLE = {1: (1, 10, 10, 50, 80), 2: (3, 60, 20, 100, 90)}


def snippets(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with the data of the guide and a run of painted people."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for split in ("train", "val"):
        for stem in ("0001", "0002"):
            write_folder_image(tmp_path / "own", stem, PEOPLE, 96, 128, split)
            folder = tmp_path / "mine" / split
            write_picture(folder / f"{stem}.jpg", 96, 128)
            for kind in ("parts", "people"):
                (folder / f"{stem}_{kind}.png").write_bytes(
                    (tmp_path / "own" / split / kind / f"{stem}.png").read_bytes()
                )
    (tmp_path / "own/labels.toml").write_text(snippets("toml")[0])
    (tmp_path / "my_people.py").write_text(snippets("python")[0])
    yield tmp_path
    sys.modules.pop("my_people", None)


def test_every_command_of_the_guide_runs(here):
    train(["painted", *TINY, "--iterations", "1", "--data-root", "scenes", "--output", "runs/painted"])
    ran = []
    for line in "".join(snippets("sh")).splitlines():
        python, flag, module, *arguments = shlex.split(line, comments=True)
        name = module.removeprefix("rpcnn.")
        assert (python, flag) == ("python", "-m")
        extra = [*SMALL, "--iterations", "1"] if name == "train" else []
        status = COMMANDS[name]([*arguments, *extra])
        assert name != "data" or status == 0, line
        ran.append(name)
    assert ran == ["data", "data", "train", "evaluate", "predict", "train", "data", "train", "evaluate", "predict"]
    assert (here / "samples.png").is_file() and (here / "predictions/0001.json").is_file()
    assert {path.name for path in (here / "runs").iterdir()} == {"painted", "own", "tuned", "mine"}


def test_the_guides_labels_and_annotations_load(here):
    labels, ignore = read_labels_file(here / "own/labels.toml")
    assert (labels.name, labels.num_classes, labels.pairs, ignore) == ("my parts", 5, ((3, 4),), 254)
    assert tomllib.loads(snippets("toml")[0])["colors"].keys() == {"Head", "Body"}
    for kind in ("parts", "people"):
        (here / "own/train" / kind).rename(here / kind)
    (here / "own/train.json").write_text(snippets("json")[0])
    (sample,) = Folder(here / "own")
    assert sample["boxes"].tolist() == [[20, 10, 60, 90]] and json.loads(snippets("json")[0])
    assert np.unique(sample["label_map"]).tolist() == [0, 1, 2]


def test_the_class_of_the_guide_names_faults(here):
    write_png(here / "mine/train/0002_parts.png", np.zeros((4, 4)))
    report = check_folder(here / "mine", "train", "my_people:MyPeople")
    assert report.images == 2 and report.people == {2: 1}
    assert report.faults[0][0] == "0002"
    assert "0002_parts.png: is 4 x 4 pixels, its image 128 x 96" in report.faults[0][1]
    assert len(snippets("python")[0].splitlines()) <= 28


def test_the_guide_lists_every_data_set():
    assert re.findall(r"^\| `(\w+)` \|", GUIDE, re.M) == list(DATASETS)


@pytest.mark.slow
def test_the_example_trains_on_five_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "examples")
    from own_data import main

    run, folder = str(tmp_path / "painted"), tmp_path / "own_data"
    scenes = ["--data.options", "train=4", "val=1", "short_side=[160, 192]", "--data-root", str(tmp_path / "scenes")]
    train(["painted", *scenes, "--iterations", "2", "--output", run, "--run.no-evaluate", "--data.workers", "0"])
    main([run, str(folder), "--iterations", "2", "--images", "4"])
    said = capsys.readouterr().out
    assert "222 of 227 tensors taken, 5 more in part" in said and "3 classes of the same name copied" in said
    assert json.loads((folder / "run/results.json").read_text())["images"] == 8
    record = json.loads((folder / "predictions/000.json").read_text())
    assert record["labels"] == ["Background", "Head", "Upper-body", "Lower-body", "Left-arm", "Right-arm"]
