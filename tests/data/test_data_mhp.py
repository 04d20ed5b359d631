import numpy as np
import pytest
import torch
from helpers.data_trees import write_mhp_image, write_png
from PIL import Image

from rpcnn.data.mhp import MHPv2


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def person(label, x1, y1, x2, y2):
    labels = np.zeros((40, 60), np.uint8)
    labels[y1:y2, x1:x2] = label
    return labels


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "LV-MHP-v2"
    write_mhp_image(root, "12", [person(12, 5, 5, 30, 30), person(34, 20, 10, 50, 40)])
    write_mhp_image(root, "3", [person(58, 0, 0, 10, 10)])
    (root / "list").mkdir()
    (root / "list/train.txt").write_text("3\n12\n")
    return root


def test_people_overlap_and_boxes_come_from_their_own_maps(tree):
    sample = MHPv2(tree)[1]
    assert sample["id"] == "12"
    assert sample["boxes"].tolist() == [[5, 5, 30, 30], [20, 10, 50, 40]]
    assert sample["person_maps"].shape == (2, 40, 60)
    assert (sample["person_maps"][0] == 12).sum() == 25 * 25 and (sample["person_maps"][1] == 34).sum() == 30 * 30


def test_the_person_with_the_highest_number_is_in_front(tree):
    label_map = MHPv2(tree)[1]["label_map"]
    assert label_map[20, 25] == 34 and label_map[6, 6] == 12 and label_map[0, 0] == 0


def test_numbers_are_compared_as_numbers(tree):
    write_mhp_image(tree, "4", [person(k, 0, 0, 30, 30) for k in range(1, 12)])
    (tree / "list/train.txt").write_text("4\n")
    sample = MHPv2(tree)[0]
    assert len(sample["boxes"]) == 11 and sample["label_map"][5, 5] == 11


def test_labels_are_in_the_first_channel(tree):
    assert MHPv2(tree)[0]["person_maps"].unique().tolist() == [0, 58]


def test_single_channel_annotations_read_as_well(tree):
    write_png(tree / "train/parsing_annos/3_01_01.png", person(9, 1, 1, 5, 5))
    assert MHPv2(tree)[0]["person_maps"].unique().tolist() == [0, 9]


def test_an_empty_person_map_means_no_person(tree):
    write_mhp_image(tree, "3", [np.zeros((40, 60))])
    sample = MHPv2(tree)[0]
    assert sample["boxes"].shape == (0, 4) and sample["person_maps"].shape == (0, 40, 60)
    assert not sample["label_map"].any()


def test_the_folder_is_listed_where_there_is_no_list(tree):
    (tree / "list/train.txt").unlink()
    assert sorted(entry.id for entry in MHPv2(tree).entries) == ["12", "3"]


def damage(tree, fault):
    folder = tree / "train/parsing_annos"
    if fault == "a person is missing":
        (folder / "12_02_01.png").unlink()
    elif fault == "no annotation":
        for path in folder.glob("12_*.png"):
            path.unlink()
    elif fault == "label out of range":
        write_png(folder / "12_02_02.png", np.stack([person(59, 0, 0, 5, 5)] * 3, -1))
    elif fault == "size mismatch":
        write_png(folder / "12_02_02.png", np.zeros((40, 61, 3)))
    elif fault == "truncated":
        path = folder / "12_02_02.png"
        path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("a person is missing", "1 to N"),
        ("no annotation", "no annotation"),
        ("label out of range", "[59]"),
        ("size mismatch", "61 x 40"),
        ("truncated", "12_02_02.png"),
    ],
)
def test_unusable_images_are_named_and_skipped(tree, fault, message):
    damage(tree, fault)
    dataset = MHPv2(tree)
    assert [entry.id for entry in dataset.entries] == ["3"]
    assert message in dataset.faults["12"]


def test_the_test_split_reads_without_annotation(tree):
    (tree / "test/images").mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tree / "test/images/8.jpg")
    (tree / "list/test_all.txt").write_text("8\n")
    sample = MHPv2(tree, "test")[0]
    assert sample["image"].shape == (3, 20, 30) and not len(sample["boxes"])


def test_wrong_folders_and_splits_are_refused(tree):
    with pytest.raises(FileNotFoundError, match="train, val and list"):
        MHPv2(tree / "train")
    with pytest.raises(ValueError, match="split"):
        MHPv2(tree, "training")


def test_a_bad_file_later_gives_the_next_image(tree):
    dataset = MHPv2(tree)
    (tree / "train/parsing_annos/3_01_01.png").unlink()
    assert dataset[0]["id"] == "12"
    assert torch.equal(dataset[0]["label_map"], dataset[1]["label_map"])
