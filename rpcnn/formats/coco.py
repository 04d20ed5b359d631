"""One JSON file in COCO's style for all images, with masks as run-length codes."""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rpcnn.labelmaps.outlines import paint_segmentation
from rpcnn.labelmaps.run_lengths import encode
from rpcnn.strict_json import read_json

from .format import Format
from .prediction import MOST_PEOPLE, Prediction, as_box, as_entries, as_integer, as_number

NAME = "predictions.json"
LARGEST_SIDE = 1 << 20
SUFFIXES = (".jpg", ".jpeg", ".png")

Entries = list[tuple[int, dict]]
"""Annotations with their places in the file."""


class CocoJson(Format):
    """predictions.json: {"images": […], "annotations": […], "categories": […]}; lossless.

    `pycocotools.coco.COCO` loads it. Beside COCO's keys, an image has `parts`, the combined label map as a category_id
    and a segmentation for every class, and an annotation, which is a person, has score, box_score and `parts`.
    """

    overlapping = True
    knows_people = True

    def __init__(self) -> None:
        self._written: dict[Path, list[tuple[str, dict, list[dict]]]] = {}  # stem, image, people; until finish
        self._read: dict[Path, dict[str, tuple[dict, Entries]]] = {}  # the whole file, as run lengths

    def detect(self, folder: Path) -> bool:
        return (folder / NAME).is_file()

    def stems(self, folder: Path) -> list[str]:
        record = read_json(folder / NAME)
        if not isinstance(record, dict) or not {"images", "annotations"} <= record.keys():
            raise ValueError(f"{folder / NAME}: must be an object with 'images' and 'annotations'")
        images: dict[str, tuple[dict, Entries]] = {}
        by_id: dict[str, Entries] = {}
        try:
            for i, image in enumerate(as_entries(record["images"], "images")):
                name = _id(image.get("id"), f"images[{i}].id")
                if name in by_id:
                    raise ValueError(f"images[{i}].id {name!r} occurs twice")
                stem = _stem(image, f"images[{i}]")
                if stem in images:
                    raise ValueError(f"images[{i}].file_name {stem!r} occurs twice, apart from its suffix")
                images[stem] = image, by_id.setdefault(name, [])
            for i, person in enumerate(as_entries(record["annotations"], "annotations")):
                if (name := _id(person.get("image_id"), f"annotations[{i}].image_id")) not in by_id:
                    raise ValueError(f"annotations[{i}].image_id {person['image_id']!r} is no image's")
                by_id[name].append((i, person))
                if len(by_id[name]) > MOST_PEOPLE:
                    raise ValueError(f"image {name!r} has more than {MOST_PEOPLE} people")
        except ValueError as error:
            raise ValueError(f"{folder / NAME}: {error}") from None
        self._read[folder] = images
        return sorted(images)

    def size(self, folder: Path, stem: str) -> tuple[int, int] | None:
        if folder not in self._read:
            self.stems(folder)
        image, _ = self._read[folder][stem]
        try:
            sides = [as_integer(_value(image, side, ""), side, 1, LARGEST_SIDE) for side in ("height", "width")]
        except ValueError as error:
            raise ValueError(f"{folder / NAME}: image {stem}: {error}") from None
        return sides[0], sides[1]

    def read(self, folder: Path, stem: str) -> Prediction:
        size = self.size(folder, stem)
        assert size is not None
        image, people = self._read[folder][stem]
        try:
            label_map, person_maps = np.zeros(size, np.uint8), np.zeros((len(people), *size), np.uint8)
            _paint(image, label_map, "")
            scores, box_scores, boxes = [], [], []
            for (i, person), person_map in zip(people, person_maps, strict=True):
                at = f"annotations[{i}]."
                _paint(person, person_map, at)
                scores.append(as_number(_value(person, "score", at), f"{at}score"))
                box_scores.append(as_number(person.get("box_score", person["score"]), f"{at}box_score"))
                if "bbox" in person:
                    x, y, width, height = as_box(person["bbox"], f"{at}bbox")
                    if width < 0 or height < 0:
                        raise ValueError(f"{at}bbox must be x, y, width, height, got a width or height below 0")
                    boxes.append([x, y, x + width, y + height])
        except (ValueError, MemoryError) as error:
            raise ValueError(f"{folder / NAME}: image {stem}: {error}") from None
        all_boxes = np.array(boxes, float) if people and len(boxes) == len(people) else None
        arrays = np.array(scores, float), np.array(box_scores, float)
        return Prediction(label_map, person_maps, arrays[0], boxes=all_boxes, box_scores=arrays[1])

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        height, width = prediction.label_map.shape
        image = {"file_name": f"{stem}.jpg", "height": height, "width": width, "parts": _parts(prediction.label_map)}
        rows = (
            prediction.scores.tolist(),
            np.asarray(prediction.box_scores).tolist(),
            np.asarray(prediction.boxes).tolist(),
        )
        people = []
        for person, score, box_score, (x1, y1, x2, y2) in zip(np.asarray(prediction.person_maps), *rows, strict=True):
            people.append(
                {"category_id": 1, "score": score, "box_score": box_score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                | {"area": int(np.count_nonzero(person)), "iscrowd": 0, "segmentation": _runs(person > 0)}
                | {"parts": _parts(person)}
            )
        self._written.setdefault(folder, []).append((stem, image, people))

    def finish(self, folder: Path, others: Sequence["CocoJson"] = ()) -> None:  # type: ignore[override]  # its own kind
        """Write the file, with images in the order of their stems.

        Args:
            folder: the folder.
            others: the formats of other processes, whose images are written to the same file.
        """
        images: list[dict] = []
        annotations: list[dict] = []
        written = [entry for format in (self, *others) for entry in format._written.pop(folder, [])]
        for number, (_, image, people) in enumerate(sorted(written, key=lambda entry: entry[0]), 1):
            images.append({"id": number} | image)
            annotations += [{"id": len(annotations) + i, "image_id": number} | one for i, one in enumerate(people, 1)]
        record = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).write_text(json.dumps(record) + "\n", encoding="utf-8")


def _runs(mask: np.ndarray) -> dict:
    return {"size": list(mask.shape), "counts": encode(mask)}


def _parts(label_map: np.ndarray) -> list[dict]:
    present = np.flatnonzero(np.bincount(label_map.ravel(), minlength=1))
    return [{"category_id": int(k), "segmentation": _runs(label_map == k)} for k in present if k]


def _paint(entry: dict, label_map: np.ndarray, at: str) -> None:
    """Paint the parts of an image or person, later ones over earlier ones, into label_map [H, W]."""
    columns = np.zeros(label_map.shape[::-1], np.uint8)
    for k, part in enumerate(as_entries(_value(entry, "parts", at), f"{at}parts")):
        name = f"{at}parts[{k}]."
        label = as_integer(_value(part, "category_id", name), f"{name}category_id", 1, 254)
        paint_segmentation(columns, _value(part, "segmentation", name), label, f"{name}segmentation")
    used = np.flatnonzero(columns.any(1))
    span = slice(used[0], used[-1] + 1) if len(used) else slice(0)  # only these: transposing a whole map is slow
    label_map[:, span] = columns[span].T


def _value(entry: dict, key: str, at: str) -> Any:
    if key not in entry:
        raise ValueError(f"{at}{key} is missing")
    return entry[key]


def _id(value: object, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{name} must be a text or an integer, got {type(value).__name__}")
    return str(value)


def _stem(image: dict, name: str) -> str:
    """The stem of an image: its file_name without folder and suffix, or its id where it has none (rpcnn up to 0.2)."""
    file_name = image.get("file_name")
    if file_name is None:
        return str(image["id"])
    if not isinstance(file_name, str):
        raise ValueError(f"{name}.file_name must be a text, got {type(file_name).__name__}")
    path = PurePosixPath(file_name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name
