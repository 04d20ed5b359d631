"""Parses a video: an overlay video, a line of JSON for each frame, and files of each frame where they are asked for."""

import collections
import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from rpcnn.visualize import draw_result

from . import saving
from .predictor import Predictor
from .results import ParsingResult
from .tracking import Tracker
from .video import Frame, Video, VideoError, VideoWriter, frames_folder


def parse_video(
    predictor: Predictor,
    video: Video,
    folder: pathlib.Path,
    stem: str,
    kinds: Sequence[str],
    origin: dict,
    remap: Callable[[ParsingResult], ParsingResult] = lambda result: result,
    progress: Callable[[Frame], None] = lambda frame: None,
) -> dict:
    """Parse a video and save what was found; a file is there whole or not at all, whatever stops this function.

    Frames are parsed and written one after the other (a few at a time with the predictor's batch_size). People with a
    score of at least min_parsing_score get numbers that stay with them (`Tracker`). The files are

        <stem>_overlay.mp4     if `kinds` have overlay: the frames with parts, numbers and scores, each number in its
                               color, of the video's size, times and, where .mp4 takes it, sound
        <stem>_frames.jsonl    for each frame: frame, from 0; time in seconds; people as in the record of a picture,
                               with their number
        <stem>_frames/         files of the other kinds, named 000000 and so on
        <stem>.json            size, frames a second, labels, of every number the first and the last frame and the count
                               of frames, and `saved`, as :func:`rpcnn.inference.saving.save` writes it

    A camera is parsed until Ctrl-C.

    Args:
        origin: what the result depends on, plain values for JSON.
        remap: makes the result to save.
        progress: called after each frame.

    Returns:
        What is in <stem>.json.

    Raises:
        VideoError: the video cannot be read to its end. What came before is saved, without `saved`.
        OSError: a file cannot be written.
    """
    each = tuple(kind for kind in kinds if kind != "overlay")
    threshold, tracker = predictor.config.inference.min_parsing_score, Tracker()
    names = [f"{stem}_overlay.mp4"] if "overlay" in kinds else []
    names.append(f"{stem}_frames.jsonl")
    record, people, fault = {}, {}, None
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        partial = [stack.enter_context(saving.replacing(folder / name)) for name in names]
        overlay = stack.enter_context(VideoWriter(partial[0], video)) if "overlay" in kinds else None
        lines = stack.enter_context(open(partial[-1], "w", encoding="utf-8"))
        try:
            for number, (frame, result) in enumerate(_parsed(predictor, video)):
                result = remap(result)
                picture, sure = Image.fromarray(frame.pixels), result.above(threshold)
                if not record:
                    record = _record(result, video)
                    saving.write_record(folder / f"{stem}.json", record)
                    if each:
                        _remove_frames(frames_folder(folder, stem))
                ids = tracker.update(sure.boxes.cpu().numpy())
                entries = [{"number": id} | entry for id, entry in zip(ids, sure.record()["people"], strict=True)]
                seconds = round(float(frame.ticks * video.time_base), 6)
                lines.write(json.dumps({"frame": number, "time": seconds, "people": entries}) + "\n")
                for entry in entries:
                    _count(people, number, entry)
                if overlay:
                    overlay.write(draw_result(picture, sure, picture.size, ids), frame.ticks)
                if each:
                    inside, name = frames_folder(folder, stem), f"{number:06d}"
                    saving.save(result, inside, name, picture, each, file_name=f"{inside.name}/{name}")
                record["frames"] = number + 1
                progress(frame)
        except VideoError as error:
            if not record:
                raise
            fault = error
        except KeyboardInterrupt:
            if not (video.camera and record):
                raise
    record["people"] = list(people.values())
    if overlay and overlay.silent:
        record["sound"] = overlay.silent
    if not fault:
        sizes = {name: (folder / name).stat().st_size for name in names}
        record["saved"] = {"origin": origin, "files": sizes}
    saving.write_record(folder / f"{stem}.json", record)
    if fault:
        raise fault
    return record


def _parsed(predictor: Predictor, video: Video) -> Iterator[tuple[Frame, ParsingResult]]:
    waiting: collections.deque[Frame] = collections.deque()

    def pixels() -> Iterator:
        for frame in video:
            waiting.append(frame)
            yield frame.pixels

    for result in predictor.stream(pixels()):
        yield waiting.popleft(), result


def _record(result: ParsingResult, video: Video) -> dict:
    record = result.record()
    return record | {"frames_per_second": round(float(video.rate), 6), "frames": 0, "people": []}


def _count(people: dict[int, dict], frame: int, entry: dict) -> None:
    """Add a person of a frame to what is known of its number."""
    person = people.setdefault(entry["number"], {"number": entry["number"], "first": frame, "frames": 0, "score": 0.0})
    person |= {"last": frame, "frames": person["frames"] + 1, "score": max(person["score"], entry["score"])}


def _remove_frames(folder: pathlib.Path) -> None:
    """Remove the results of an earlier video, which may have been longer."""
    earlier = [path for path in folder.iterdir() if saving.is_result(path)] if folder.is_dir() else []
    for path in earlier:
        path.unlink()
