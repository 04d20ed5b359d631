"""rpcnn predict: any picture is parsed right or named, and no file of the user's is replaced."""

import os
import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from rpcnn import Predictor
from rpcnn.predict import check_places, find_pictures, main

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

    monkeypatch.setattr("rpcnn.inference.results.os.replace", full)
    with pytest.raises(SystemExit) as ended:
        predict("a.png")
    assert ended.value.code == 2 and "No space left on device" in capsys.readouterr().err
    assert names(here / "predictions") == []


def test_a_name_that_is_no_text_is_printed(here, capsys):
    picture(here / "a.png")
    os.rename("a.png", b"\xff.png")
    predict(".")
    assert "\\udcff.png: " in capsys.readouterr().out
