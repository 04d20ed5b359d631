"""The files of a result: which kinds there are, their names, and writing each whole or not at all."""

import contextlib
import difflib
import io
import json
import os
import pathlib
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rpcnn.labelmaps.polygons import outlines
from rpcnn.visualize import flat_palette

from .coco_file import coco_record

if TYPE_CHECKING:
    from .results import ParsingResult

_ONE = {
    "overlay": "_overlay.png",
    "labels": "_labels.png",
    "instances": "_instances.png",
    "coco": "_coco.json",
    "polygons": "_polygons.json",
    "probabilities": "_probabilities.npz",
}
_EACH = {"people": "person", "cutouts": "cutout", "crops": "crop"}
KINDS = (*_ONE, *_EACH)
"""What can be saved of a result; the record, <stem>.json, always is."""
DEFAULT = ("overlay", "labels", "instances")
OF_VIDEO = ("_overlay.mp4", "_frames.jsonl")
"""Endings of the files of a video: the overlay, and what is always written."""
_OF_PERSON = re.compile(rf"(.+)_(?:{'|'.join(_EACH.values())})_[1-9]\d*\.png", re.DOTALL)


def checked_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """The kinds in the order of KINDS, each once. Raises ValueError for one that there is not."""
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    for kind in kinds:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"save: must be of {', '.join(KINDS)}, got {kind!r}{hint}")
    return tuple(kind for kind in KINDS if kind in kinds)


def result_names(stem: str, kinds: Sequence[str] = DEFAULT) -> list[str]:
    """The names of the files of a result but those of single people, the record last."""
    return [f"{stem}{ending}" for kind, ending in _ONE.items() if kind in kinds] + [f"{stem}.json"]


def stem_of_person_file(name: str) -> str | None:
    """The stem of <stem>_person_<i>.png, <stem>_cutout_<i>.png and <stem>_crop_<i>.png; None for other names."""
    match = _OF_PERSON.fullmatch(name)
    return match and match[1]


def is_result(path: pathlib.Path) -> bool:
    """Whether a file is one that `save` wrote, by its name and the record beside it."""
    endings = (*_ONE.values(), *OF_VIDEO, ".json")
    stems = [path.name.removesuffix(ending) for ending in endings if path.name.endswith(ending)]
    return any(is_record(path.with_name(f"{stem}.json")) for stem in [*stems, stem_of_person_file(path.name)] if stem)


def is_record(path: pathlib.Path) -> bool:
    """Whether a file is the record of a result, <stem>.json."""
    return {"height", "width", "label_set", "labels", "people"} <= _read(path).keys()


def _read(path: pathlib.Path) -> dict:
    """The object in a JSON file; empty where there is none."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def is_saved(folder: pathlib.Path, stem: str, origin: dict) -> bool:
    """Whether all files of a result are there, whole, and of this origin: see `save`."""
    saved = _read(folder / f"{stem}.json").get("saved")
    if not isinstance(saved, dict) or saved.get("origin") != origin or not isinstance(saved.get("files"), dict):
        return False
    try:
        return all(os.stat(folder / name).st_size == length for name, length in saved["files"].items())
    except (OSError, ValueError):
        return False


def save(
    result: "ParsingResult",
    folder: pathlib.Path,
    stem: str,
    picture: Image.Image,
    kinds: Sequence[str],
    origin: dict | None = None,
    file_name: str = "",
) -> list[pathlib.Path]:
    """Write the files of a result, the record last; each appears whole or not at all.

    With an origin, the record has the entry `saved`: the origin, and the files with their numbers of bytes. It is
    written first without it, so that whatever stops this function leaves files that are known to be results, and are
    not taken for a whole one. Files of single people that an earlier record names and this result has not are deleted.

    Args:
        picture: RGB of the result's size.
        kinds: of `checked_kinds`.
        origin: what the result depends on, plain values for JSON.
        file_name: of the picture, for the COCO file.

    Raises:
        ValueError: probabilities were not kept.
    """
    if "probabilities" in kinds and result.probabilities is None:
        raise ValueError("save: probabilities are kept only by Predictor(…, keep_probabilities=True)")
    folder.mkdir(parents=True, exist_ok=True)
    path, record = folder / f"{stem}.json", result.record()
    before = _read(path).get("saved")
    files: dict[str, int] = {}
    for name, data in _contents(result, stem, picture, kinds, file_name):
        if not files and origin is not None:
            write_record(path, record)
        _write(folder / name, data)
        files[name] = len(data)
    if origin is not None:
        record["saved"] = {"origin": origin, "files": files}
    write_record(path, record)
    for name in before["files"] if isinstance(before, dict) and isinstance(before.get("files"), dict) else ():
        if name not in files and stem_of_person_file(name) == stem:
            (folder / name).unlink(missing_ok=True)
    return [*(folder / name for name in files), path]


def _contents(
    result: "ParsingResult", stem: str, picture: Image.Image, kinds: Sequence[str], file_name: str
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files but the record, one by one."""
    make = {
        "overlay": lambda: _png(result.plot(picture)),
        "labels": lambda: _png(result.label_image()),
        "instances": lambda: _png(result.instance_image()),
        "coco": lambda: json.dumps(coco_record(result, file_name or stem)).encode(),
        "polygons": lambda: json.dumps(polygons(result)).encode(),
    }
    if result.probabilities:
        make["probabilities"] = result.probabilities.npz
    for kind, ending in _ONE.items():
        if kind in kinds:
            yield f"{stem}{ending}", make[kind]()
    shown = set(result.shown)
    for person in range(len(result)):
        if "people" in kinds:
            yield f"{stem}_person_{person + 1}.png", _png(_palette_image(result, person))
        if "cutouts" in kinds and person in shown:
            yield f"{stem}_cutout_{person + 1}.png", _png(result.cutout(person, picture))
        if "crops" in kinds and person in shown:
            yield f"{stem}_crop_{person + 1}.png", _png(result.crop(person, picture))


def polygons(result: "ParsingResult") -> dict:
    """The outlines of every part of the people in the instance map, see :func:`rpcnn.labelmaps.polygons.outlines`."""
    people, records = [], result.record()["people"]
    for person in result.shown:
        labels = result.person_map(person).cpu().numpy()
        present = [int(label) for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=1)) if label]
        parts = [
            {"label": label, "outlines": [ring.tolist() for ring in outlines(labels == label)]} for label in present
        ]
        people.append({"instance": person + 1, "score": records[person]["score"], "parts": parts})
    height, width = result.label_map.shape
    return {"height": height, "width": width, "labels": list(result.label_set.names), "people": people}


def _palette_image(result: "ParsingResult", person: int) -> Image.Image:
    picture = Image.fromarray(result.person_map(person).cpu().numpy())
    picture.putpalette(flat_palette(result.label_set))
    return picture


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Context with the path of a file to write, which then becomes `path`; after an error, nothing is left of it."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_record(path: pathlib.Path, record: dict) -> None:
    """Write <stem>.json."""
    _write(path, json.dumps(record, indent=1).encode())


def _write(path: pathlib.Path, data: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(data)
