import json
import logging
import os
import pickle
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from helpers.data_trees import write_cihp_image, write_png
from PIL import Image

from rpcnn.data.cihp import CIHP
from rpcnn.data.files import DataFault

PEOPLE = {1: (5, 4, 6, 20, 30), 3: (14, 30, 10, 50, 39)}  # human ids need not be consecutive


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "CIHP"
    for k in range(1, 5):
        write_cihp_image(root, f"{k:07d}", PEOPLE)
    return root


def test_person_maps_combine_category_and_human_maps(tree):
    sample = CIHP(tree)[1]
    assert sample["id"] == "0000002"
    assert sample["image"].shape == (3, 40, 60) and sample["image"].dtype == torch.uint8
    assert sample["boxes"].tolist() == [[4, 6, 20, 30], [30, 10, 50, 39]] and sample["boxes"].dtype == torch.float32
    assert sample["person_maps"].shape == (2, 40, 60) and sample["person_maps"].dtype == torch.uint8
    assert sample["person_maps"][0].unique().tolist() == [0, 5] and (sample["person_maps"][1] == 14).sum() == 20 * 29
    assert torch.equal(sample["label_map"], sample["person_maps"].amax(0))


def test_a_person_without_parts_is_dropped_label_map_kept(tree):
    category, human = np.zeros((40, 60)), np.zeros((40, 60))
    human[:5, :5], human[20:, 20:], category[20:, 20:] = 1, 2, 9
    write_png(tree / "Training/Category_ids/0000001.png", category)
    write_png(tree / "Training/Human_ids/0000001.png", human)
    sample = CIHP(tree)[0]
    assert sample["boxes"].tolist() == [[20, 20, 60, 40]]
    assert torch.equal(sample["label_map"], torch.from_numpy(category.astype(np.uint8)))


def test_an_image_without_people_is_a_sample(tree):
    write_cihp_image(tree, "0000009", {})
    sample = CIHP(tree)[4]
    assert sample["boxes"].shape == (0, 4) and sample["person_maps"].shape == (0, 40, 60)
    assert not sample["label_map"].any()


def test_the_id_list_decides_where_there_is_one(tree):
    assert len(CIHP(tree)) == 4
    (tree / "Training/train_id.txt").write_text("0000003\n0000001\n")
    assert [entry.id for entry in CIHP(tree).entries] == ["0000003", "0000001"]


def test_ignored_pixels_pass(tree):
    category = np.zeros((40, 60))
    category[0, 0], category[10:, 10:] = 255, 3
    write_png(tree / "Training/Category_ids/0000001.png", category)
    assert CIHP(tree)[0]["label_map"][0, 0] == 255


def test_gray_images_become_rgb_and_exif_rotation_is_ignored(tree):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees": the maps are aligned with the stored pixels
    Image.new("L", (60, 40), 99).save(tree / "Training/Images/0000001.jpg", exif=exif)
    assert CIHP(tree)[0]["image"].shape == (3, 40, 60)


def damage(tree, fault):
    folder = tree / "Training"
    if fault == "missing category map":
        (folder / "Category_ids/0000002.png").unlink()
    elif fault == "missing human map":
        (folder / "Human_ids/0000002.png").unlink()
    elif fault == "missing image":
        (folder / "train_id.txt").write_text("".join(f"{k:07d}\n" for k in range(1, 5)))
        (folder / "Images/0000002.jpg").unlink()
    elif fault == "truncated image":
        path = folder / "Images/0000002.jpg"
        path.write_bytes(path.read_bytes()[:-400])
    elif fault == "truncated map":
        path = folder / "Human_ids/0000002.png"
        path.write_bytes(path.read_bytes()[:60])
    elif fault == "no image at all":
        (folder / "Images/0000002.jpg").write_text("<html>not found</html>")
    elif fault == "size mismatch":
        write_png(folder / "Category_ids/0000002.png", np.zeros((41, 60)))
    elif fault == "label out of range":
        write_png(folder / "Category_ids/0000002.png", np.full((40, 60), 20))
    elif fault == "map in color":
        write_png(folder / "Category_ids/0000002.png", np.zeros((40, 60, 3)))


FAULTS = {
    "missing category map": "Category_ids",
    "missing human map": "Human_ids",
    "missing image": "Images",
    "truncated image": "0000002.jpg",
    "truncated map": "Human_ids",
    "no image at all": "0000002.jpg",
    "size mismatch": "60 x 41",
    "label out of range": r"\[20\]",
    "map in color": "a value per pixel .*got 3 channels",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_images_are_named_counted_and_skipped(tree, fault, caplog):
    damage(tree, fault)
    with caplog.at_level(logging.WARNING):
        dataset = CIHP(tree)
    assert [entry.id for entry in dataset.entries] == ["0000001", "0000003", "0000004"]
    assert list(dataset.faults) == ["0000002"]
    with pytest.raises(DataFault, match=FAULTS[fault]):
        raise DataFault(dataset.faults["0000002"])
    assert "1 of 4 images" in caplog.text and "0000002" in caplog.text


def test_the_cached_index_is_rebuilt_when_a_file_changes(tree, monkeypatch):
    scans = []
    scan = CIHP._scan
    monkeypatch.setattr(CIHP, "_scan", lambda self, stem: scans.append(stem) or scan(self, stem))
    CIHP(tree)
    assert len(scans) == 4 and (tree / "Training/.rpcnn-index-cihp.json").exists()
    CIHP(tree)
    assert len(scans) == 4
    write_cihp_image(tree, "0000003", {1: (7, 0, 0, 9, 9)})
    assert CIHP(tree)[2]["boxes"].tolist() == [[0, 0, 9, 9]]
    assert len(scans) == 8
    shutil.rmtree(tree / "Training/Images")
    write_cihp_image(tree, "0000001", PEOPLE)
    assert len(CIHP(tree)) == 1 and len(scans) == 9


def test_read_only_data_put_the_index_in_the_cache_folder(tree, tmp_path):
    os.chmod(tree / "Training", 0o555)
    try:
        CIHP(tree)
        assert not (tree / "Training/.rpcnn-index-cihp.json").exists()
        (cached,) = (tmp_path / "cache/rpcnn").iterdir()
        assert len(json.loads(cached.read_text())["entries"]) == 4
        assert len(CIHP(tree)) == 4
    finally:
        os.chmod(tree / "Training", 0o755)


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored["entries"][0].update(id="../../x"),
        lambda stored: stored["entries"].append(dict(stored["entries"][0])),
        lambda stored: stored["faults"].update({"../y": "why"}),
        lambda stored: stored["entries"][0].update(height=-1),
        lambda stored: stored["entries"][0].update(height="9"),
        lambda stored: stored["entries"][0].update(people=[1], boxes=[]),
        lambda stored: stored["entries"][0].update(extra=1),
        lambda stored: stored.update(entries=None),
        lambda stored: stored.update(faults=[1]),
    ],
)
def test_a_cache_that_names_other_images_is_built_again(change, tree):
    want = CIHP(tree, "train").entries
    path = tree / "Training/.rpcnn-index-cihp.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    assert CIHP(tree, "train").entries == want and json.loads(path.read_text())["entries"] == [asdict(e) for e in want]


def test_a_broken_cache_is_built_again(tree):
    CIHP(tree)
    (tree / "Training/.rpcnn-index-cihp.json").write_text('{"version": 1, "ent')
    assert len(CIHP(tree)) == 4


def test_a_file_that_breaks_later_is_skipped_and_named_once(tree, caplog):
    dataset = CIHP(tree)
    (tree / "Training/Images/0000002.jpg").unlink()
    write_png(tree / "Training/Category_ids/0000003.png", np.zeros((10, 10)))
    with caplog.at_level(logging.WARNING):
        assert [dataset[1]["id"] for _ in range(3)] == ["0000004"] * 3
    assert caplog.text.count("0000002 cannot be used") == 1
    with pytest.raises(DataFault, match="0000002"):
        dataset.load(1)


def test_a_data_set_without_readable_images_raises(tree):
    dataset = CIHP(tree)
    shutil.rmtree(tree / "Training/Images")
    with pytest.raises(DataFault, match="none of the 4"):
        dataset[0]


def test_wrong_folders_splits_and_indices_are_refused(tree):
    with pytest.raises(FileNotFoundError, match="Training and Validation"):
        CIHP(tree / "Training")
    with pytest.raises(ValueError, match="split"):
        CIHP(tree, "Training")
    with pytest.raises(IndexError):
        CIHP(tree)[4]


def test_the_test_split_has_pictures_alone(tree):
    (tree / "Testing/Images").mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tree / "Testing/Images/0000007.jpg")
    sample = CIHP(tree, "test")[0]
    assert sample["image"].shape == (3, 20, 30) and not len(sample["boxes"])


def test_a_data_set_can_be_sent_to_another_process(tree):
    dataset = pickle.loads(pickle.dumps(CIHP(tree)))
    assert torch.equal(dataset[0]["label_map"], CIHP(tree)[0]["label_map"])


def test_the_real_sample_reads_as_annotated(sample_data):
    train, val = CIHP(sample_data / "cihp_sample"), CIHP(sample_data / "cihp_sample", "val")
    assert (len(train), len(val)) == (16, 4) and not train.faults and not val.faults
    assert sum(len(entry.people) for entry in train.entries) == 45
    for dataset in (train, val):
        for sample in (dataset[i] for i in range(len(dataset))):
            assert torch.equal(sample["person_maps"].amax(0), sample["label_map"])
            assert (sample["person_maps"] > 0).sum(0).max() == 1  # CIHP's people do not overlap
            x1, y1, x2, y2 = sample["boxes"].unbind(1)
            assert (x2 > x1).all() and (y2 > y1).all() and x2.max() <= sample["image"].shape[2]
