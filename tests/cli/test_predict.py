"""rpcnn predict: any picture is parsed right or named, and no file of the user's is replaced."""

import os
import pathlib
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from rpcnn import Predictor
from rpcnn.inference import saving
from rpcnn.inference.sources import check_places, find_pictures
from rpcnn.model.build import build_model
from rpcnn.predict import main
from rpcnn.runtime.checkpoint import load_weights, save_weights

RUN = pathlib.Path(__file__).parent / "run_of_version_0_1"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path, size=(32, 24), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path, **options)
    return path


def predict(*arguments):
    main([*map(str, arguments), "--weights", str(RUN), "--device", "cpu"])


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


KINDS = {
    "people": "_person_1.png",
    "cutouts": "_cutout_1.png",
    "coco": "_coco.json",
    "polygons": "_polygons.json",
    "probabilities": "_probabilities.npz",
}


@pytest.fixture
def scene(here):
    """A picture in which the run of the tests finds people."""
    (here / "scene.png").write_bytes((RUN / "scene.png").read_bytes())
    return here / "scene.png"


def results(*stems):
    return sorted(
        f"{stem}{kind}" for stem in stems for kind in ("_overlay.png", "_labels.png", "_instances.png", ".json")
    )


def bomb(path, width, height):
    """A PNG of some bytes whose header announces width × height pixels."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))


def test_broken_and_hostile_pictures_are_named_and_the_others_are_parsed(here):
    good = picture(here / "in" / "good.jpg")
    (here / "in" / "cut.jpg").write_bytes(good.read_bytes()[:500])
    (here / "in" / "empty.png").write_bytes(b"")
    bomb(here / "in" / "bomb.png", 60_000, 60_000)
    bomb(here / "in" / "large.png", 10_001, 10_000)
    (here / "in" / "script.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ran) print\n"
    )
    with pytest.raises(SystemExit) as ended:
        predict("in")
    lines = str(ended.value).splitlines()[1:]
    assert [line.split("/")[-1].split()[0] for line in lines] == [
        *("bomb.png", "cut.jpg", "empty.png", "large.png", "script.jpg")
    ]
    assert "more than max_pixels (--max-pixels) = 100000000" in lines[3] and "it is none of AVIF" in lines[4]
    assert names(here / "predictions") == results("good")


def test_the_exit_status_says_that_a_picture_was_not_parsed(here):
    (here / "a.png").write_bytes(b"")
    command = [sys.executable, "-m", "rpcnn.predict", "a.png", "--weights", str(RUN), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "a.png cannot be read" in done.stderr


def test_max_pixels_bounds_a_picture(here):
    picture(here / "a.png", (40, 30))
    predict("a.png", "--max-pixels", 1200)
    with pytest.raises(SystemExit, match=r"a.png cannot be read: it has 40 x 30 pixels, more than max_pixels"):
        predict("a.png", "--max-pixels", 1199, "--output", "other")
    with pytest.raises(ValueError, match="40 x 30 pixels"):
        Predictor(RUN, "cpu", max_pixels=1000)(Image.open("a.png"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-parsing-score", "nan"], "min_parsing_score must lie in 0..1"),
        (["--min-parsing-score", "-3"], "min_parsing_score must lie in 0..1"),
        (["--test-short-side", "0"], "test_short_side must lie in 1..32768"),
        (["--test-short-side", str(10**9)], "test_short_side must lie in 1..32768"),
        (["--device", "banana"], "device: must be auto, cpu, cuda or cuda:N"),
        (["--device", "meta"], "device: must be auto, cpu, cuda or cuda:N"),
        (["--device", "cpu:7"], "device: must be auto, cpu, cuda or cuda:N"),
        (["--batch-size", "0"], "batch_size must be at least 1"),
        (["--max-pixels", "0"], "--max-pixels must be at least 1"),
        (["--save", "overlay,label"], "got 'label'; did you mean 'labels'?"),
        (["--save", ","], "save: must be of overlay, "),
        (["--labels", "lib"], "labels: must be lip, "),
    ],
)
def test_options_are_checked_before_any_picture(options, message, here, capsys):
    picture(here / "a.png")
    with pytest.raises(SystemExit) as ended:
        main(["a.png", "--weights", str(RUN), "--device", "cpu", *options])
    assert ended.value.code == 2 and message in capsys.readouterr().err and names(here) == ["a.png"]


def test_a_tree_of_pictures_is_kept_below_the_output(here):
    for path in ("photos/a.jpg", "photos/x/a.jpg", "photos/x/y/a.png"):
        picture(here / path)
    predict("photos/**/*.*")
    assert names(here / "predictions") == results("a", "x/a", "x/y/a")
    predict("photos/**/*.*", "--output", "photos/out")  # inside the source: a second time nothing more is found
    predict("photos/**/*.*", "--output", "photos/out")
    assert names(here / "photos") == sorted(
        ["a.jpg", "x/a.jpg", "x/y/a.png", *results("out/a", "out/x/a", "out/x/y/a")]
    )


def test_results_beside_the_pictures_are_not_parsed_again(here):
    picture(here / "a.jpg")
    for _ in range(2):
        predict(".", "--output", ".")
    assert names(here) == sorted(["a.jpg", *results("a")])


@pytest.mark.parametrize("own", ["a_labels.png", "a_overlay.png", "a_instances.png", "a.json"])
def test_a_file_of_the_user_is_never_replaced(own, here, capsys):
    picture(here / "in" / "a.jpg")
    (here / "in" / own).write_bytes(b"mine")
    with pytest.raises(SystemExit) as ended:
        predict("in/a.jpg", "--output", "in")
    assert ended.value.code == 2 and f"--output: in/{own} would be replaced" in capsys.readouterr().err
    assert (here / "in" / own).read_bytes() == b"mine" and names(here / "in") == sorted(["a.jpg", own])


def test_two_pictures_that_would_write_one_file_are_an_error(here):
    paths = [picture(here / folder / "x.jpg") for folder in "ab"]
    check_places(find_pictures([str(paths[0]), f"{here}/a/../a/x.jpg"]), here / "out")
    with pytest.raises(ValueError, match=rf"source: {paths[0]} and {paths[1]} would both write .*out/x_overlay.png"):
        check_places(find_pictures(list(map(str, paths))), here / "out")
    picture(here / "a" / "x.png")
    with pytest.raises(ValueError, match="would both write"):
        check_places(find_pictures(["a"]), here / "out")


def test_an_output_that_cannot_be_written_is_one_line(here, capsys):
    picture(here / "a.png")
    (here / "file").write_bytes(b"")
    (here / "folder" / "a.json").mkdir(parents=True)
    for output, message in (
        ("file", "is a file"),
        ("folder", "a.json would be replaced"),
        ("/proc/x", "cannot be made"),
    ):
        with pytest.raises(SystemExit) as ended:
            predict("a.png", "--output", output)
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_full_disk_is_one_line(here, capsys, monkeypatch):
    picture(here / "a.png")

    def full(*arguments):
        raise OSError(28, "No space left on device", "a.json")

    monkeypatch.setattr("rpcnn.inference.saving.os.replace", full)
    with pytest.raises(SystemExit) as ended:
        predict("a.png")
    assert ended.value.code == 2 and "No space left on device" in capsys.readouterr().err
    assert names(here / "predictions") == []


def test_a_name_that_is_no_text_is_printed(here, capsys):
    picture(here / "a.png")
    os.rename("a.png", b"\xff.png")
    predict(".")
    assert "\\udcff.png: " in capsys.readouterr().out


def test_a_folder_is_taken_with_its_subfolders_only_if_asked(here, capsys):
    for path in ("photos/a.jpg", "photos/x/a.jpg", "photos/x/y/b.png", "photos/.trash/c.jpg"):
        picture(here / path)
    predict("photos", "--output", "flat")
    predict("photos", "--recursive", "--output", "photos/out")
    predict("photos", "--recursive", "--output", "photos/out")  # inside the source: nothing more is found
    assert names(here / "flat") == results("a") and names(here / "photos" / "out") == results("a", "x/a", "x/y/b")
    (here / "photos" / "a.jpg").unlink()
    with pytest.raises(SystemExit):
        predict("photos")
    assert "--recursive takes those of its subfolders" in capsys.readouterr().err


def test_a_list_names_pictures_and_keeps_their_folders(here):
    for path in ("photos/s1/x.jpg", "photos/s2/x.jpg", "photos/s2/left out.jpg"):
        picture(here / path)
    (here / "list.txt").write_bytes(f"photos/s1/x.jpg\r\n\n{here}/photos/s2/x.jpg".encode())
    predict("--list", "list.txt")
    assert names(here / "predictions") == results("s1/x", "s2/x")


def test_a_listed_picture_that_is_missing_is_named_and_the_others_are_parsed(here):
    picture(here / "a.png")
    (here / "list.txt").write_text("a.png\nnone.png\n")
    with pytest.raises(SystemExit, match=r"none\.png does not exist"):
        predict("--list", "list.txt")
    assert names(here / "predictions") == results("a")


@pytest.mark.parametrize("content", [None, b"\n \n", b"a\0b"])
def test_a_list_without_pictures_is_an_error(content, here, capsys):
    if content is not None:
        (here / "list.txt").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        predict("--list", "list.txt")
    assert ended.value.code == 2 and "--list: list.txt" in capsys.readouterr().err


@pytest.mark.parametrize(("data", "code"), [("picture", 0), (b"", 2), (b"no picture", 1)])
def test_a_picture_comes_by_standard_input(data, code, here):
    if data == "picture":
        data = picture(here / "a.png").read_bytes()
    command = [sys.executable, "-m", "rpcnn.predict", "-", "--weights", str(RUN), "--device", "cpu"]
    done = subprocess.run(command, input=data, capture_output=True)
    assert done.returncode == code, done.stderr
    if code:
        assert b"standard input" in done.stderr and b"Traceback" not in done.stderr
    else:
        assert names(here / "predictions") == results("stdin")


def test_what_systems_leave_in_folders_is_no_picture(here):
    picture(here / "in" / "a.jpg")
    for name in ("._a.jpg", ".DS_Store", "Thumbs.db", "__MACOSX/._a.jpg"):
        (here / "in" / name).parent.mkdir(exist_ok=True)
        (here / "in" / name).write_bytes(b"\0")
    for source in (["in"], ["in", "--recursive"], ["in/*"]):
        predict(*source)
    assert names(here / "predictions") == results("a")


def test_what_looks_like_a_picture_in_a_folder_is_parsed_or_named(here):
    for name in ("a.jfif", "b.jpe", "c.jp2", "d.pgm", "e.bmp"):
        picture(here / "in" / name)
    image = Image.open(here / "in" / "a.jfif")
    image.save(here / "in" / "f.mpo", "MPO", save_all=True, append_images=[image])
    (here / "in" / "g.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (here / "in" / "notes.txt").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as ended:
        predict("in")
    assert len(str(ended.value).splitlines()) == 2 and "in/g.heic cannot be read" in str(ended.value)
    assert names(here / "predictions") == results(*"abcdef")


def test_a_log_has_no_progress_bar(here, capfd):
    for name in "ab":
        picture(here / f"{name}.png")
    predict("a.png", "b.png")
    assert "parsing" not in capfd.readouterr().err


def test_only_the_kinds_that_are_asked_for_are_saved(scene, here):
    predict("scene.png", "--min-parsing-score", 0, "--save", ",".join(KINDS))
    written = names(here / "predictions")
    assert {"scene.json", "coco.json", *(f"scene{ending}" for ending in KINDS.values())} <= set(written)
    assert not {"scene_overlay.png", "scene_labels.png", "scene_instances.png"} & set(written)
    COCO(here / "predictions" / "coco.json")


@pytest.mark.parametrize("own", [*(f"scene{ending}" for ending in KINDS.values()), "scene_person_70.png", "coco.json"])
def test_a_file_of_the_user_is_never_replaced_by_any_kind(own, scene, here, capsys):
    (here / own).write_bytes(b"mine")
    with pytest.raises(SystemExit) as ended:
        predict("scene.png", "--output", ".", "--save", ",".join(KINDS))
    assert ended.value.code == 2 and f"--output: {own} would be replaced" in capsys.readouterr().err
    assert names(here) == sorted(["scene.png", own]) and (here / own).read_bytes() == b"mine"


def test_the_coco_file_and_a_picture_of_its_name_clash(here, capsys):
    picture(here / "coco.jpg")
    with pytest.raises(SystemExit):
        predict("coco.jpg", "--save", "coco")
    assert "coco.jpg and --save coco would both write predictions/coco.json" in capsys.readouterr().err


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_resume_skips_what_is_done_and_nothing_else(here, capsys):
    for name in "abcd":
        picture(here / "in" / f"{name}.png")
    predict("in", "--resume", "--save", "labels,coco")
    before = times(here / "predictions")
    (here / "predictions" / "b_labels.png").unlink()
    picture(here / "in" / "c.png", size=(40, 30))
    predict("in", "--resume", "--save", "labels,coco")
    after = times(here / "predictions")
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"{stem}{kind}" for stem in "bc" for kind in ("_labels.png", "_coco.json", ".json")} | {
        "coco.json"
    }
    output = capsys.readouterr().out
    assert "--resume: 2 of 4 images are done" in output and "--resume: 2 results are not whole, or of other" in output
    assert len(COCO(here / "predictions" / "coco.json").getImgIds()) == 4


@pytest.mark.parametrize("options", [["--short-side", "40"], ["--labels", "lip"], ["--save", "labels"], ["--augment"]])
def test_results_of_other_settings_are_made_again(options, here, capsys):
    picture(here / "a.png")
    predict("a.png")
    predict("a.png", "--resume", *options)
    assert "0 of 1 images are done" in capsys.readouterr().out


def test_results_of_other_weights_are_made_again(here, capsys):
    picture(here / "a.png")
    predict("a.png")
    loaded = load_weights(RUN)
    model = build_model(loaded.config, loaded.label_set.num_classes)
    (here / "other").mkdir()
    save_weights(here / "other" / "model.safetensors", model, loaded.config, loaded.label_set)
    main(["a.png", "--resume", "--weights", "other", "--device", "cpu"])
    assert "0 of 1 images are done" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(here, capsys, monkeypatch):
    for name in "abc":
        picture(here / "in" / f"{name}.png")
    save = saving.save

    def stopped(result, folder, stem, *arguments, **options):
        if stem == "b":
            raise KeyboardInterrupt
        return save(result, folder, stem, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving, "save", stopped)
        predict("in")
    assert "rpcnn: 2 of 3 images are left; the same command with --resume goes on" in capsys.readouterr().err
    predict("in", "--resume")
    assert names(here / "predictions") == results("a", "b", "c")
    assert "1 of 3 images are done" in capsys.readouterr().out


def test_a_short_side_that_the_long_side_limits_is_said(here, capsys):
    picture(here / "wide.png", (64, 20))
    predict("wide.png", "--short-side", 5000)
    wanted = r"rpcnn: --test-short-side 5000 is not reached: the long side is at most \d+ \(--test-long-side-max\)"
    assert len(re.findall(wanted, capsys.readouterr().out)) == 2  # before the first picture, and at the end
    predict("wide.png", "--short-side", 100, "--test-long-side-max", 310)
    assert "(--test-long-side-max), in 1 of them" in capsys.readouterr().out
    predict("wide.png", "--short-side", 100, "--test-long-side-max", 320)
    assert "is not reached" not in capsys.readouterr().out


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_processes_share_the_pictures(here):
    for name in "abcde":
        picture(here / "in" / f"{name}.png")
    (here / "in" / "cut.png").write_bytes(b"")
    options = ["--weights", str(RUN), "--device", "cpu", "--save", "labels,coco"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "rpcnn.predict", "in", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1 and done.stdout.count("rpcnn: 5 images parsed with") == 1, done.stderr
    assert done.stderr.count("in/cut.png cannot be read") == 1
    predict("in/[a-e].png", "--save", "labels,coco", "--output", "one")
    assert names(here / "predictions") == names(here / "one")
    for name in names(here / "one"):
        if name.endswith(("_labels.png", "coco.json")):
            assert (here / "predictions" / name).read_bytes() == (here / "one" / name).read_bytes()
