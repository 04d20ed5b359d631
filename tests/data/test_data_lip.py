"""LIP, and PASCAL-Person-Part, which has CIHP's folders."""

import numpy as np
import pytest
from helpers.data_trees import write_cihp_image, write_picture, write_png

from rpcnn.data.check import check_folder
from rpcnn.data.lip import LIP
from rpcnn.data.pascal_person_part import PascalPersonPart


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_lip_image(root, stem, labels, split="train", inner=""):
    write_picture(root / "TrainVal_images" / inner / f"{split}_images" / f"{stem}.jpg")
    write_png(root / "TrainVal_parsing_annotations" / f"{split}_segmentations" / f"{stem}.png", labels)


def parts(value):
    labels = np.zeros((40, 60), np.uint8)
    labels[5:30, 10:40] = value
    return labels


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "LIP"
    for k in (1, 2, 3):
        write_lip_image(root, f"77_{k}", parts(10))
    (root / "TrainVal_images/train_id.txt").write_text("77_3\n77_1.jpg\n")
    return root


def test_all_labels_of_a_picture_are_one_person(tree):
    dataset = LIP(tree)
    assert dataset.ids == ["77_3", "77_1"] and dataset.labels.names[10] == "Jumpsuits"
    sample = dataset[0]
    assert sample["boxes"].tolist() == [[10, 5, 40, 30]]
    assert np.array_equal(sample["person_maps"][0], parts(10)) and np.array_equal(sample["label_map"], parts(10))


def test_the_id_list_in_root_comes_first(tree):
    (tree / "train_id.txt").write_text("77_2\n")
    assert LIP(tree).ids == ["77_2"]
    for folder in (tree, tree / "TrainVal_images"):
        (folder / "train_id.txt").unlink()
    assert LIP(tree).ids == ["77_1", "77_2", "77_3"]


def test_a_nested_archive_folder_is_found(tmp_path):
    write_lip_image(tmp_path, "5", parts(3), "val", inner="TrainVal_images")
    assert LIP(tmp_path, "val").ids == ["5"]
    with pytest.raises(FileNotFoundError, match=r"LIP: no folder .*train_images; root must be the folder that holds"):
        LIP(tmp_path, "train")


def test_faults_and_stray_files_of_lip_are_named(tree):
    write_lip_image(tree, "77_1", parts(20))
    (tree / "TrainVal_parsing_annotations/train_segmentations/77_3.png").unlink()
    write_png(tree / "TrainVal_parsing_annotations/train_segmentations/88.png", parts(1))
    report = check_folder(tree)
    faults, notes = dict(report.faults), dict(report.notes)
    assert "got [20]" in faults["77_1"] and "77_3.png" in faults["77_3"]
    assert "belongs to no image" in notes["88"] and "not in the list" in notes["77_2"]


def test_pascal_person_part_is_evaluated_on_testing(tmp_path):
    write_cihp_image(tmp_path, "0000001", {1: (6, 0, 0, 10, 10), 4: (1, 20, 0, 25, 10)})
    write_cihp_image(tmp_path, "0000002", {1: (2, 0, 0, 10, 10)}, split="Testing")
    write_cihp_image(tmp_path, "0000003", {1: (7, 0, 0, 10, 10)}, split="Testing")
    train, val = PascalPersonPart(tmp_path), PascalPersonPart(tmp_path, "val")
    assert len(train[0]["boxes"]) == 2 and train.labels.num_classes == 7
    assert val.ids == ["0000002"] and "got [7]" in val.faults["0000003"]
    with pytest.raises(ValueError, match="PascalPersonPart: split must be one of train, val, got 'test'"):
        PascalPersonPart(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match=r"PascalPersonPart: no folder .*holds Training and Testing"):
        PascalPersonPart(tmp_path / "Training")
