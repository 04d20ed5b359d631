import re

import numpy as np
import pytest
from helpers.data_trees import cihp_maps, write_cihp_image, write_folder_image, write_mhp_image, write_png
from PIL import Image

from rpcnn.data.__main__ import main
from rpcnn.data.check import check_folder
from rpcnn.data.cihp import CIHP
from rpcnn.data.datasets import open_split


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "CIHP"
    for k in range(1, 9):
        write_cihp_image(root, f"{k:07d}", {1: (5, 0, 0, 10, 10), 2: (13, 20, 0, 25, 10)})
    return root


def test_a_valid_folder_has_no_faults_and_right_statistics(tree):
    write_cihp_image(tree, "0000009", {}, 60, 40)
    report = check_folder(tree)
    assert report.images == 9 and not report.faults and not report.notes
    assert dict(report.people) == {2: 8, 0: 1}
    assert report.pixels[5] == 8 * 100 and report.pixels[13] == 8 * 50 and report.images_with[5] == 8
    assert report.pixels.sum() == 9 * 2400
    text = report.text()
    assert "9 images, 9 usable" in text and "1 portraits" in text and "UpperClothes" in text and "66.67 %" in text


def test_every_planted_fault_is_found_at_once(tree):
    folder = tree / "Training"
    (folder / "Category_ids/0000001.png").unlink()
    jpg = folder / "Images/0000002.jpg"
    jpg.write_bytes(jpg.read_bytes()[:-300])
    write_png(folder / "Human_ids/0000003.png", np.zeros((39, 60)))
    write_png(folder / "Category_ids/0000004.png", np.full((40, 60), 77))
    write_png(folder / "Human_ids/0000004.png", np.zeros((40, 61)))  # two faults in one image: both are named
    category, human = cihp_maps(40, 60, {1: (5, 0, 0, 10, 10)})
    human[30:, 30:], human[0, 20], category[39, 0] = 4, 1, 9
    write_png(folder / "Category_ids/0000005.png", category)
    write_png(folder / "Human_ids/0000005.png", human)
    write_png(folder / "Category_ids/0000077.png", np.zeros((40, 60)))
    (folder / "train_id.txt").write_text("".join(f"{k:07d}\n" for k in (1, 2, 3, 4, 5, 6, 6, 10)))
    report = check_folder(tree)
    faults, notes = [" ".join(finding) for finding in report.faults], [" ".join(finding) for finding in report.notes]
    for stem, message in (
        ("0000001", "Category_ids"),
        ("0000002", "cannot be read"),
        ("0000003", "60 x 39"),
        ("0000004", "[77]"),
        ("0000004", "61 x 40"),
        ("0000010", "0000010.jpg"),
    ):
        assert any(stem in fault and message in fault for fault in faults), (stem, message)
    for stem, message in (
        ("0000005", "person 4 has 300 pixels and no part"),
        ("0000005", "1 pixels of a person without a part"),
        ("0000005", "1 pixels of a part without a person"),
        ("0000077", "belongs to no image"),
        ("0000006", "listed 2 times"),
        ("0000007", "not in the list"),
    ):
        assert any(stem in note and message in note for note in notes), (stem, message)
    assert {name for name, _ in report.faults} == set(CIHP(tree).faults)  # the reader skips exactly these
    assert sum(report.people.values()) == 2


def leave_litter(root):
    """What macOS and Windows leave: a ._ twin of every file, and their own files in every folder."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
        else:
            (path / ".DS_Store").write_bytes(b"\0")
            (path / "Thumbs.db").write_bytes(b"\0")


def test_what_systems_leave_in_folders_is_no_fault(tree, tmp_path):
    person = np.zeros((40, 60), np.uint8)
    person[:10, :10] = 12
    write_mhp_image(tmp_path / "MHP", "7", [person])
    for root in (tree, tmp_path / "MHP"):
        before = check_folder(root).text()
        leave_litter(root)
        assert check_folder(root).text() == before


def test_mhp_faults_are_found_and_statistics_true(tmp_path):
    first, second = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    first[:10, :10], second[5:15, :10] = 12, 30
    write_mhp_image(tmp_path, "1", [first, second])
    write_mhp_image(tmp_path, "2", [first, second, second])
    write_mhp_image(tmp_path, "3", [first, np.zeros((40, 60))])
    write_mhp_image(tmp_path, "4", [first, first])
    write_mhp_image(tmp_path, "5", [])
    (tmp_path / "train/parsing_annos/2_03_02.png").unlink()
    write_png(tmp_path / "train/parsing_annos/stray.png", np.zeros((4, 4)))
    report = check_folder(tmp_path)
    assert {name for name, _ in report.faults} == {"2", "5"}
    notes = dict(report.notes)
    assert "3_02_02.png has no part" in notes["3"] and "twice" in notes["4"] and "not named" in notes["stray"]
    assert dict(report.people) == {2: 2, 1: 1}
    assert report.pixels[12] == 400 and report.pixels[30] == 100 and report.pixels[0] == 3 * 2400 - 150 - 100 - 100


def test_check_exits_nonzero_on_faults(tree, capsys):
    assert main(["check", str(tree)]) == 0
    assert "8 usable, 0 left out" in capsys.readouterr().out
    (tree / "Training/Human_ids/0000002.png").unlink()
    assert main(["check", str(tree), "--split", "train"]) == 1
    assert "0000002" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds none of the splits val"):
        main(["check", str(tree), "--split", "val"])


def test_paint_and_show_work_together(tmp_path, capsys):
    root, sheet = str(tmp_path / "painted"), tmp_path / "sheet" / "samples.png"
    assert main(["paint", root, "--train", "3", "--val", "1", "--short-side", "48", "60", "--workers", "1"]) == 0
    arguments = ["show", root, "--output", str(sheet.parent), "--count", "3", "--short-side", "64", "80"]
    assert main(arguments) == 0
    assert "3 samples" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.width > 640 and picture.height > 240
    first = sheet.read_bytes()
    assert main(arguments) == 0 and sheet.read_bytes() == first
    assert main([*arguments, "--seed", "1"]) == 0 and sheet.read_bytes() != first


def test_an_empty_folder_raises(tmp_path):
    with pytest.raises(SystemExit, match=r"rpcnn: .*holds no data set that is recognized"):
        main(["show", str(tmp_path)])


def test_a_root_that_is_no_folder_is_named_alone(tmp_path):
    with pytest.raises(SystemExit, match=f"^rpcnn: {tmp_path / 'nope'} does not exist$"):
        main(["check", str(tmp_path / "nope")])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=f"^rpcnn: {tmp_path / 'file'} is not a folder$"):
        main(["show", str(tmp_path / "file")])


def test_the_folder_above_a_data_set_names_it(tree):
    with pytest.raises(SystemExit, match=f"; {re.escape(str(tree))} does"):
        main(["show", str(tree.parent)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show --count 0", "--count must be at least 1, got 0"),
        ("show --short-side 300 100", "--short-side must be LOW HIGH with 1 <= LOW <= HIGH, got 300 100"),
        ("show --long-side-max 0", "--long-side-max must be at least 1, got 0"),
        ("paint --short-side 16 40", "--short-side must be LOW HIGH with 32 <= LOW <= HIGH, got 16 40"),
        ("paint --difficulty 2", "--difficulty must be in 0..1, got 2.0"),
        ("paint --train -1", "--train must be at least 0, got -1"),
    ],
)
def test_an_option_out_of_range_is_named(arguments, message, tmp_path):
    command, *options = arguments.split()
    with pytest.raises(SystemExit, match=f"^rpcnn: {re.escape(message)}$") as stop:
        main([command, str(tmp_path / "data"), *options])
    assert stop.value.code == 2 and not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["check", "show", "paint"])
def test_help_explains_every_flag(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    flags = [line for line in text.splitlines() if "│ --" in line]
    assert "Folder" in text and all(len(line.split()) > 3 for line in flags)


def test_the_real_sample_is_sound(sample_data):
    for split, images in (("train", 16), ("val", 4)):
        report = check_folder(sample_data / "cihp_sample", split)
        assert report.images == images and not report.faults and not report.notes


@pytest.fixture
def own(tmp_path):
    for stem in ("a", "b"):
        write_folder_image(tmp_path / "own", stem, {1: (1, 5, 5, 20, 30)})
    return tmp_path / "own"


def test_a_split_without_annotations_has_status_one(own, capsys):
    (own / "train/parts").rename(own / "train/masks")
    assert main(["check", str(own)]) == 1
    assert re.search(r"^train: fault: Folder: .*parts and .*train.json are both missing", capsys.readouterr().out)


def test_a_split_without_images_has_status_one(own, capsys, caplog):
    for path in (own / "train/images").iterdir():
        path.unlink()
    assert main(["check", str(own)]) == 1
    assert "\nfault: there are no images\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=f"^rpcnn: Folder: there are no images in the split train of {own}$"):
        main(["show", str(own)])
    assert not caplog.text


def test_a_split_without_people_warns_and_has_status_one(own, capsys, caplog):
    for path in (own / "train/parts").iterdir():
        write_png(path, np.zeros((40, 60)))
    assert main(["check", str(own)]) == 1
    assert "\nfault: no image has a person\n" in capsys.readouterr().out and not caplog.text
    open_split(own, "train")
    assert caplog.text.count("no image in") == 1


def test_what_check_lists_is_not_logged_as_well(own, caplog):
    (own / "train/parts/a.png").unlink()
    assert main(["check", str(own)]) == 1 and not caplog.text
    open_split(own, "train")
    assert "1 of 2 images cannot be used" in caplog.text


def test_people_of_specks_are_noted(tree):
    category, human = cihp_maps(40, 60, {1: (5, 0, 0, 10, 10), 2: (13, 50, 5, 51, 6), 3: (2, 20, 0, 24, 4)})
    category[39, 59], human[39, 59] = 2, 3
    write_png(tree / "Training/Category_ids/0000001.png", category)
    write_png(tree / "Training/Human_ids/0000001.png", human)
    assert check_folder(tree).notes == [
        ("0000001", "a person of 1 pixels in a box of 1 x 1 at 50, 5: specks?"),
        ("0000001", "a person of 17 pixels in a box of 40 x 40 at 20, 0: specks?"),
    ]


def test_people_255_of_ignored_pixels_are_nobody(tree):
    category, human = cihp_maps(40, 60, {1: (5, 0, 0, 10, 10)})
    category[30:, 30:], human[30:, 30:] = 255, 255
    write_png(tree / "Training/Category_ids/0000001.png", category)
    write_png(tree / "Training/Human_ids/0000001.png", human)
    sample = CIHP(tree)[0]
    assert sample["boxes"].tolist() == [[0, 0, 10, 10]] and sample["label_map"][39, 59] == 255
    category[35, 35] = 9
    write_png(tree / "Training/Category_ids/0000001.png", category)
    assert len(CIHP(tree)[0]["boxes"]) == 2  # a 255th person


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(24, "Too many open files")])
def test_what_the_system_refuses_is_no_fault_for_ever(error, tree, monkeypatch):
    def refuse(*arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("rpcnn.pictures.Image.open", refuse)
        assert len(CIHP(tree).faults) == 8 and error.strerror in CIHP(tree).faults["0000001"]
    assert len(CIHP(tree)) == 8 and not CIHP(tree).faults


def test_faults_of_the_files_are_remembered(tree, monkeypatch):
    (tree / "Training/Images/0000002.jpg").write_bytes(b"no picture")
    assert list(CIHP(tree).faults) == ["0000002"]
    monkeypatch.setattr("rpcnn.data.files.opened", None)  # not looked at again
    assert list(CIHP(tree).faults) == ["0000002"]


def test_a_user_without_a_home_keeps_the_index_beside_the_data(tree, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", no_home)
    assert len(CIHP(tree)) == 8 and (tree / "Training/.rpcnn-index-cihp.json").is_file()


@pytest.mark.filterwarnings("error")
def test_255_people_are_counted(tree):
    category, human = np.full((40, 60), 5), np.arange(2400).reshape(40, 60) // 9
    category[human > 255] = human[human > 255] = 0
    category[human == 0] = 0
    write_png(tree / "Training/Category_ids/0000001.png", category)
    write_png(tree / "Training/Human_ids/0000001.png", human)
    assert len(CIHP(tree)[0]["boxes"]) == 255 and check_folder(tree).people[255] == 1
