"""Data sets by name, dotted name and files; their options; and what the base class provides to custom classes."""

import re

import numpy as np
import pytest
import torch
from helpers.data_trees import (
    LABELS_TOML,
    write_cihp_image,
    write_folder_image,
    write_mhp_image,
    write_picture,
    write_png,
)
from helpers.own_people import Blocks

from rpcnn.config import Config, load_config
from rpcnn.data.__main__ import main
from rpcnn.data.check import check_folder
from rpcnn.data.dataset import PeopleDataset
from rpcnn.data.datasets import DATASETS, dataset_class, detect_dataset, label_set_of, open_split
from rpcnn.data.open import label_set, open_dataset
from rpcnn.data.painted.dataset import Painted
from rpcnn.data.sample import make_sample
from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labels import CIHP, MHP_V2

BLOCKS = "helpers.own_people:Blocks"
PERSON = {1: (1, 5, 5, 20, 30)}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_lip(root):
    write_picture(root / "TrainVal_images/train_images/7.jpg")
    write_png(root / "TrainVal_parsing_annotations/train_segmentations/7.png", np.zeros((40, 60)))


def write_pascal(root):
    for split in ("Training", "Testing"):
        write_cihp_image(root, "0000001", PERSON, split=split)


TREES = {
    "cihp": lambda root: write_cihp_image(root, "0000001", PERSON),
    "mhpv2": lambda root: write_mhp_image(root, "1", [np.ones((40, 60))]),
    "lip": write_lip,
    "pascal_person_part": write_pascal,
    "folder": lambda root: write_folder_image(root, "1", PERSON),
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_description(name):
    cls = dataset_class(name)
    assert issubclass(cls, PeopleDataset) and "train" in cls.splits and "val" in cls.splits
    assert cls.__doc__ and (name == "folder" or cls.labels.num_classes > 1)
    assert not cls.__abstractmethods__


@pytest.mark.parametrize("name", TREES)
def test_a_folder_is_recognized_by_its_files(name, tmp_path):
    TREES[name](tmp_path / "data")
    assert detect_dataset(tmp_path / "data") == name
    assert len(open_split(tmp_path / "data", "train")) == 1
    with pytest.raises(FileNotFoundError, match=r"holds no data set .*cihp: Validation/Images.*data does$"):
        detect_dataset(tmp_path)


def test_a_folder_of_two_data_sets_asks_for_the_name(tmp_path):
    TREES["cihp"](tmp_path)
    TREES["folder"](tmp_path)
    with pytest.raises(SystemExit, match="may be cihp or folder; choose with --dataset"):
        main(["check", str(tmp_path), "--split", "train"])
    assert main(["check", str(tmp_path), "--split", "train", "--dataset", "folder"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chip", "must be one of cihp, .*, or package.module:Class, got 'chip'; did you mean 'cihp'"),
        ("helpers.own_peple:Blocks", "there is no module 'helpers.own_peple'"),
        ("helpers.own_people:Block", "helpers.own_people has no 'Block'; did you mean 'Blocks'"),
        (
            "helpers.own_people:NotADataset",
            "NotADataset must be a subclass of rpcnn.data.dataset.PeopleDataset, got <class",
        ),
        ("helpers.own_people:np", "np must be a subclass"),
        ("helpers.own_people:NoLabels", "NoLabels has no __len__, load, labels"),
    ],
)
def test_invalid_data_set_names_are_explained(name, message):
    with pytest.raises(ValueError, match=f"data.dataset: .*{message}"):
        dataset_class(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("painted", {"dificulty": 1}, "Painted takes train, val, .*, got 'dificulty'; did you mean 'difficulty'"),
        ("painted", {"difficulty": "high"}, "Painted: difficulty must be a number, got 'high'"),
        ("painted", {"short_side": [9]}, r"Painted: short_side must be two numbers of pixels, got \[9\]"),
        ("cihp", {"train": 1}, "CIHP takes no options, got 'train'"),
        (BLOCKS, {"counts": 1}, "Blocks takes count, broken, seed, got 'counts'; did you mean 'count'"),
    ],
)
def test_an_unknown_option_is_explained(name, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_split(tmp_path, "train", name, options)


def test_config_passes_options_and_seed_to_the_data_set(tmp_path):
    words = ["--data.dataset", BLOCKS, "--data.options", "count=3", "--seed", "4", "--data-root", str(tmp_path)]
    assert label_set(load_config("painted")) is CIHP and label_set(load_config("mhpv2_r50")) is MHP_V2
    config = load_config("cihp_r50", words)
    assert label_set(config) is Blocks.labels
    train, val = open_dataset(config, "train"), open_dataset(config, "eval")
    assert len(train) == 3 and train.start == (4, True) and val.start == (4, False)
    config.data.options["seed"], config.data.eval_split = 5, "train"
    assert open_dataset(config, "eval").start == (5, True)
    config.data.eval_split = "test"
    with pytest.raises(ValueError, match="Blocks: split must be one of train, val, got 'test'"):
        open_dataset(config, "eval")


def test_missing_painted_data_are_painted(tmp_path):
    config = Config()
    config.data.dataset, config.data.root = "painted", str(tmp_path)
    config.data.options = {"train": 2, "val": 1, "short_side": [48, 60]}
    config.run.seed = 3
    train = open_dataset(config, "train")
    assert isinstance(train, Painted) and len(train) == 2
    assert (tmp_path / "2+1-48to60-d0.5-s3/Training/Images").is_dir()
    images = sorted(tmp_path.rglob("*.jpg"))
    stamps = [path.stat().st_mtime_ns for path in images]
    assert len(open_dataset(config, "eval")) == 1
    assert [path.stat().st_mtime_ns for path in images] == stamps


@pytest.mark.parametrize("labels", [None, ["Background", "Top"]])
def test_labels_of_a_class_must_be_a_label_set(labels, tmp_path, monkeypatch):
    monkeypatch.setattr(Blocks, "labels", labels)
    message = rf"Blocks: labels must be an rpcnn\.labels\.LabelSet, got {re.escape(repr(labels))}"
    with pytest.raises(ValueError, match=message):
        open_split(tmp_path, "train", BLOCKS)
    with pytest.raises(ValueError, match=message):
        label_set_of(tmp_path, BLOCKS, {})


def test_a_bug_in_load_is_named_with_class_and_image(tmp_path, monkeypatch):
    monkeypatch.setattr(Blocks, "load", lambda self, index: {}["parts"])
    with pytest.raises(SystemExit, match=r"^rpcnn: Blocks.load: image #0: KeyError: 'parts' \(test_datasets.py, line"):
        main(["check", str(tmp_path), "--dataset", BLOCKS])


def test_faults_of_a_class_have_the_ids_it_gives(tmp_path):
    blocks = Blocks(tmp_path, "train", count=3, broken=1)
    blocks.ids = ["first", "second", "third"]
    assert blocks.faults == {"second": "block 1 is broken"}


def test_a_custom_class_gets_ids_sizes_faults_and_truth(tmp_path, caplog):
    blocks = Blocks(tmp_path, "train", count=3, broken=1)
    assert blocks.ids == ["000", "#1", "002"] and blocks.faults == {"#1": "block 1 is broken"}
    assert blocks.sizes.shape == (3, 2) and blocks.sizes[0].tolist() == [96, 128]
    assert [blocks[1]["id"] for _ in range(3)] == ["002"] * 3
    assert caplog.text.count("cannot be used and is replaced by the next image: block 1 is broken") == 1
    truth = blocks.truth(0)
    assert truth.person_maps.shape == (2, 96, 128) and isinstance(truth.boxes, np.ndarray)
    with pytest.raises(IndexError, match=r"Blocks: index 3 is outside 0\.\.2"):
        blocks[3]


def test_check_and_show_accept_a_custom_class(tmp_path, capsys):
    report = check_folder(tmp_path, "train", BLOCKS, {"count": 3, "broken": 1})
    assert report.images == 3 and report.faults == [("#1", "block 1 is broken")] and report.people == {2: 2}
    assert report.pixels.tolist() == [2 * (96 * 128 - 4000), 3200, 2400, 2400]
    assert main(["check", str(tmp_path), "--dataset", BLOCKS, "--options", "count=2"]) == 0
    assert "Left" in capsys.readouterr().out
    sheet = tmp_path / "sheet" / "samples.png"
    assert (
        main(["show", str(tmp_path), "--dataset", BLOCKS, "--output", str(sheet.parent), "--long-side-max", "100"]) == 0
    )
    assert sheet.is_file()


def test_a_sample_is_made_of_arrays():
    image = np.zeros((4, 6, 3), np.uint8)
    maps = np.zeros((3, 4, 6), np.uint8)
    maps[0, :2], maps[2, 1:3, :3] = 1, 2
    sample = make_sample("a", image, maps)
    assert sample["boxes"].tolist() == [[0, 0, 6, 2], [0, 1, 3, 3]] and len(sample["person_maps"]) == 2
    assert sample["label_map"][1].tolist() == [2, 2, 2, 1, 1, 1]
    assert sample["image"].shape == (3, 4, 6)
    numbered = make_sample("a", image, NumberedPersonMaps(maps[0], np.uint8(maps[0] > 0), 1))
    assert torch.equal(numbered["label_map"], torch.from_numpy(maps[0])) and len(numbered["boxes"]) == 1
    nobody = make_sample("a", image, np.zeros((0, 4, 6), np.uint8))
    assert nobody["boxes"].shape == (0, 4) and not nobody["label_map"].any()
    with pytest.raises(ValueError, match=r"make_sample: image of 'a' must be uint8 \[4, 6, 3\], got float64"):
        make_sample("a", image.astype(float), maps)
    with pytest.raises(ValueError, match=r"person_maps of 'a' must be uint8 \[3, 4, 6\], got uint8 \[3, 4, 5\]"):
        make_sample("a", image, maps[..., :5])


def test_the_classes_of_a_folder_are_those_of_its_file(tmp_path):
    (tmp_path / "labels.toml").write_text(LABELS_TOML)
    config = Config()
    config.data.dataset, config.data.root = "folder", str(tmp_path)
    assert label_set(config).names[3] == "Left-arm" and label_set(config).num_classes == 5
