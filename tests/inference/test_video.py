"""rpcnn predict of a video: an overlay of the same size, times and sound, and a line for each frame."""

import json
import pathlib
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rpcnn.inference import saving
from rpcnn.inference.tracking import Tracker
from rpcnn.inference.video import Video, VideoError
from rpcnn.predict import main

av = pytest.importorskip("av", reason='PyAV is not installed: pip install "rpcnn[video]"')

RUN = pathlib.Path(__file__).parents[1] / "cli" / "run_of_version_0_1"
PEOPLE = np.array(Image.open(RUN / "scene.png").convert("RGB"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clip(path, count=6, pixels=PEOPLE, rate=10, sound=None, codec="libx264", **options):
    """A video of one picture, which moves a pixel a frame; sides are made even."""
    pixels = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2]
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p"
        tone = sound and file.add_stream(sound, rate=8000, layout="mono")
        for i in range(count):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(pixels, i, 1)), "rgb24")))
        file.mux(stream.encode(None))
        for start in range(0, int(8000 * count / rate), 1024) if tone else ():
            file.mux(tone.encode(silence(start)))
        if tone:
            file.mux(tone.encode(None))
    return path


def silence(start):
    piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    piece.sample_rate, piece.pts = 8000, start
    return piece


def predict(*arguments):
    main([*map(str, arguments), "--weights", str(RUN), "--device", "cpu", "--min-parsing-score", "0.01"])


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames(path):
    with av.open(str(path)) as file:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]


@pytest.mark.parametrize("rate", [10, Fraction(30000, 1001)])
def test_the_overlay_has_size_rate_times_and_sound(rate, here):
    clip("clip.mp4", rate=rate, sound="aac")
    predict("clip.mp4")
    assert names(here / "predictions") == ["clip.json", "clip_frames.jsonl", "clip_overlay.mp4"]
    before, after = frames("clip.mp4"), frames("predictions/clip_overlay.mp4")
    assert [time for time, _ in after] == [time for time, _ in before]
    assert after[0][1].shape == before[0][1].shape and np.abs(after[0][1].astype(int) - before[0][1]).mean() > 5
    for path in ("clip.mp4", "predictions/clip_overlay.mp4"):
        with av.open(path) as file:
            video, sound = file.streams.video[0], file.streams.audio[0]
            assert video.frames == 6 and video.average_rate == rate and sound.codec_context.name == "aac"
            assert sum(packet.size for packet in file.demux(sound)) > 0
    found = lines(here / "predictions" / "clip_frames.jsonl")
    assert [line["frame"] for line in found] == list(range(6))
    assert [line["time"] for line in found] == pytest.approx([time for time, _ in before], abs=1e-6)


def test_people_have_a_number_box_and_scores_and_the_record_counts_them(here):
    predict(clip("clip.mp4"))
    found, record = (
        lines(here / "predictions" / "clip_frames.jsonl"),
        json.loads(pathlib.Path("predictions/clip.json").read_text()),
    )
    assert found[0]["people"], "the run of the tests finds nobody"
    for line in found:
        numbers = [person["number"] for person in line["people"]]
        assert len(set(numbers)) == len(numbers) and all({"box", "score", "parts"} <= p.keys() for p in line["people"])
    tracker = Tracker()
    for line in found:
        boxes = np.array([person["box"] for person in line["people"]])
        assert tracker.update(boxes) == [person["number"] for person in line["people"]]
    assert record["frames"] == 6 and record["frames_per_second"] == 10
    for person in record["people"]:
        in_frames = [line["frame"] for line in found if person["number"] in [p["number"] for p in line["people"]]]
        assert (person["first"], person["last"], person["frames"]) == (in_frames[0], in_frames[-1], len(in_frames))


def test_frames_are_saved_if_asked_for_and_nothing_else(here):
    predict(clip("clip.mp4", 3), "--save", "labels,coco")
    assert names(here / "predictions") == sorted(
        ["clip.json", "clip_frames.jsonl", "coco.json"]
        + [f"clip_frames/00000{i}{end}" for i in range(3) for end in (".json", "_labels.png", "_coco.json")]
    )
    images = COCO("predictions/coco.json").imgs.values()
    assert [image["file_name"] for image in images] == [f"clip_frames/00000{i}" for i in range(3)]
    clip("clip.mp4", 2)
    predict("clip.mp4", "--save", "labels,coco")
    assert not (here / "predictions" / "clip_frames" / "000002.json").exists()


def test_a_file_of_the_user_among_the_frames_is_kept(here, capsys):
    clip("clip.mp4", 2)
    own = here / "predictions" / "clip_frames" / "000000_labels.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(SystemExit):
        predict("clip.mp4", "--save", "labels")
    assert "000000_labels.png would be replaced" in capsys.readouterr().err and own.read_bytes() == b"mine"


def test_odd_sides_are_kept(here):
    clip("clip.avi", 2, PEOPLE[:63, :81], codec="mpeg4")
    with av.open("odd.mkv", "w") as file:
        stream = file.add_stream("ffv1", rate=5)
        stream.height, stream.width, stream.pix_fmt = 63, 81, "bgr0"
        for _ in range(2):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(PEOPLE[:63, :81]), "rgb24")))
        file.mux(stream.encode(None))
    predict("odd.mkv", "clip.avi")
    assert frames("predictions/odd_overlay.mp4")[0][1].shape == (63, 81, 3)
    assert frames("predictions/clip_overlay.mp4")[0][1].shape == (62, 80, 3)


def test_a_turned_video_is_upright(here):
    """The matrix of a track's header, which phones write, turns by a quarter clockwise: the left side goes up."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32, 0] = 255
    data = bytearray(pathlib.Path(clip("clip.mp4", 2, pixels)).read_bytes())
    at = data.index(struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    data[at : at + 36] = turned
    pathlib.Path("turned.mp4").write_bytes(data)
    with Video(pathlib.Path("turned.mp4"), 10**8) as video:
        upright = next(iter(video)).pixels
    assert upright.shape == (64, 48, 3)
    assert upright[:30, :, 0].min() > 200 and upright[34:, :, 0].max() < 60
    predict("turned.mp4")
    assert frames("predictions/turned_overlay.mp4")[0][1].shape == (64, 48, 3)


def test_sound_that_mp4_does_not_take_is_said(here, capsys):
    predict(clip("clip.avi", 3, sound="pcm_u8", codec="mpeg4"))
    assert "in 3 frames; its sound is pcm_u8, which .mp4 does not take" in capsys.readouterr().out
    assert len(frames("predictions/clip_overlay.mp4")) == 3


@pytest.mark.parametrize(("name", "data"), [("empty.mp4", b""), ("text.mp4", b"no video" * 99), ("sound.mp4", None)])
def test_what_is_no_video_is_named_and_the_others_are_parsed(name, data, here):
    clip("good.mp4", 2)
    if data is None:
        with av.open(name, "w") as file:
            tone = file.add_stream("aac", rate=8000, layout="mono")
            file.mux(tone.encode(silence(0)))
            file.mux(tone.encode(None))
    else:
        pathlib.Path(name).write_bytes(data)
    with pytest.raises(SystemExit, match=f"not parsed:\n  video: {name}"):
        predict(name, "good.mp4")
    assert names(here / "predictions") == ["good.json", "good_frames.jsonl", "good_overlay.mp4"]


@pytest.mark.parametrize(("name", "codec"), [("clip.mkv", "libx264"), ("clip.mp4", "mpeg4"), ("clip.avi", "mpeg4")])
@pytest.mark.parametrize("cut", [True, False])
def test_a_video_that_breaks_off_is_saved_so_far_and_named_and_not_done(cut, name, codec, here, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    data = pathlib.Path(clip(name, 40, noise, codec=codec, movflags="faststart")).read_bytes()
    half = len(data) * 2 // 3
    pathlib.Path(name).write_bytes(data[:half] + (b"" if cut else b"\xff" * (len(data) - half)))
    for _ in range(2):
        with pytest.raises(SystemExit, match=rf"video: {name} (cannot be read|breaks off) after \d+ frames"):
            predict(name, "--resume")
    read = lines(here / "predictions" / "clip_frames.jsonl")
    assert 0 < len(read) < 40 and len(frames("predictions/clip_overlay.mp4")) == len(read)
    assert "1 of 1 images are done" not in capsys.readouterr().out


def test_a_name_that_looks_like_an_address_is_a_file(here):
    pathlib.Path(clip("clip.mp4", 2)).rename("http:a.mp4")
    predict("http:a.mp4")
    assert len(frames(f"{here}/predictions/http:a_overlay.mp4")) == 2


def test_frames_have_a_limit_too(here):
    clip("clip.mp4", 2)
    with pytest.raises(SystemExit, match="pixels, more than max_pixels"):
        predict("clip.mp4", "--max-pixels", 100)


def test_resume_skips_a_video_that_is_done_and_no_other(here, capsys):
    clip("clip.mp4", 2)
    predict("clip.mp4")
    predict("clip.mp4", "--resume")
    assert "1 of 1 images are done" in capsys.readouterr().out
    (here / "predictions" / "clip_overlay.mp4").unlink()
    predict("clip.mp4", "--resume")
    assert "0 of 1 images are done" in capsys.readouterr().out and (here / "predictions" / "clip_overlay.mp4").exists()


def test_whatever_stops_it_leaves_no_half_video(here, monkeypatch, capsys):
    clip("clip.mp4", 4)
    predict("clip.mp4")
    old = (here / "predictions" / "clip_overlay.mp4").read_bytes()
    update, calls = Tracker.update, []

    def stopped(tracker, boxes):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(tracker, boxes)

    monkeypatch.setattr(Tracker, "update", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict("clip.mp4")
    assert "1 of 1 images are left" in capsys.readouterr().err
    assert names(here / "predictions") == ["clip.json", "clip_frames.jsonl", "clip_overlay.mp4"]
    assert (here / "predictions" / "clip_overlay.mp4").read_bytes() == old
    assert not saving.is_saved(here / "predictions", "clip", {})


def test_a_camera_that_is_not_there_is_named(here):
    with pytest.raises(SystemExit, match="video: camera 97 cannot be read"):
        predict("97")


def test_ctrl_c_ends_a_camera_and_its_files_are_whole(here, monkeypatch):
    """A file stands for the camera, which this machine may not have; it ends by Ctrl-C as a camera does."""
    clip("clip.mp4", 5)
    opened = av.open
    monkeypatch.setattr(
        av,
        "open",
        lambda name, *more, **options: opened("clip.mp4") if name == "/dev/video0" else opened(name, *more, **options),
    )
    update, calls = Tracker.update, []

    def stopped(tracker, boxes):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return update(tracker, boxes)

    monkeypatch.setattr(Tracker, "update", stopped)
    predict("0")
    assert names(here / "predictions") == ["camera_0.json", "camera_0_frames.jsonl", "camera_0_overlay.mp4"]
    assert (
        len(frames("predictions/camera_0_overlay.mp4"))
        == len(lines(here / "predictions" / "camera_0_frames.jsonl"))
        == 3
    )


def test_without_pyav_one_line_names_the_extra(here, monkeypatch, capsys):
    clip("clip.mp4", 1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SystemExit) as ended:
        predict("clip.mp4")
    assert (
        ended.value.code == 2 and 'video: needs the package av: pip install "rpcnn[video]"' in capsys.readouterr().err
    )
    with pytest.raises(VideoError):
        Video(pathlib.Path("clip.mp4"), 10**8)
    assert not (here / "predictions").exists()
