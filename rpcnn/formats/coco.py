"""One JSON file in COCO's style for all images, with masks as run-length codes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rpcnn.labelmaps.run_lengths import encode, paint_runs

from .format import Format
from .prediction import MOST_PEOPLE, Prediction, as_box, as_entries, as_integer, as_number, read_json

NAME = "predictions.json"
LARGEST_SIDE = 1 << 20


def _masks(label_map: np.ndarray) -> list[dict]:
    present = np.flatnonzero(np.bincount(label_map.ravel(), minlength=1))
    size = list(label_map.shape)
    return [
        {"category_id": int(k), "segmentation": {"size": size, "counts": encode(label_map == k)}} for k in present if k
    ]


def _paint(masks: list[dict], label_map: np.ndarray) -> None:
    """Paint the masks, later ones over earlier ones, into label_map [H, W]."""
    columns = np.zeros(label_map.shape[::-1], np.uint8)
    for mask in as_entries(masks, "parts"):
        label, segmentation = as_integer(mask["category_id"], "category_id", 1, 254), mask["segmentation"]
        if not isinstance(segmentation, dict):
            raise ValueError(f"a segmentation must be an object, got {type(segmentation).__name__}")
        if segmentation["size"] != list(label_map.shape):
            given = str(segmentation["size"])[:60]
            raise ValueError(f"a segmentation's size must be the image's {list(label_map.shape)}, got {given}")
        paint_runs(columns, segmentation["counts"], label)
    used = np.flatnonzero(columns.any(1))
    span = slice(used[0], used[-1] + 1) if len(used) else slice(0)  # only these: transposing a whole map is slow
    label_map[:, span] = columns[span].T


def _id(value: object, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{name} must be a text or an integer, got {type(value).__name__}")
    return str(value)


class CocoJson(Format):
    """predictions.json: {"images": […], "annotations": […]}; lossless.

    An image has id, height, width and parts, the combined label map as a category_id and a segmentation for every
    class. An annotation is a person with image_id, score, box_score, bbox [x, y, width, height] and parts.
    """

    overlapping = True
    knows_people = True

    def __init__(self) -> None:
        self._written: dict[Path, tuple[list, list]] = {}  # images and annotations until finish
        self._read: dict[Path, dict[str, tuple[dict, list]]] = {}  # the whole file, as run lengths

    def detect(self, folder: Path) -> bool:
        return (folder / NAME).is_file()

    def stems(self, folder: Path) -> list[str]:
        record = read_json(folder / NAME)
        if not isinstance(record, dict) or not {"images", "annotations"} <= record.keys():
            raise ValueError(f"{folder / NAME}: must be an object with 'images' and 'annotations'")
        images: dict[str, tuple[dict, list]] = {}
        try:
            for image in as_entries(record["images"], "images"):
                if (name := _id(image.get("id"), "an image's id")) in images:
                    raise ValueError(f"the image's id {name!r} occurs twice")
                images[name] = image, []
            for person in as_entries(record["annotations"], "annotations"):
                if (name := _id(person.get("image_id"), "an annotation's image_id")) not in images:
                    raise ValueError(f"an annotation's image_id {person['image_id']!r} is no image's")
                images[name][1].append(person)
                if len(images[name][1]) > MOST_PEOPLE:
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
            sides = [as_integer(image[side], side, 1, LARGEST_SIDE) for side in ("height", "width")]
        except KeyError as missing:
            raise ValueError(f"{folder / NAME}: image {stem}: {missing} is missing") from None
        except ValueError as error:
            raise ValueError(f"{folder / NAME}: image {stem}: {error}") from None
        return sides[0], sides[1]

    def read(self, folder: Path, stem: str) -> Prediction:
        size = self.size(folder, stem)
        try:
            image, people = self._read[folder][stem]
            assert size is not None
            label_map, person_maps = np.zeros(size, np.uint8), np.zeros((len(people), *size), np.uint8)
            _paint(image["parts"], label_map)
            for person, person_map in zip(people, person_maps, strict=True):
                _paint(person["parts"], person_map)
            scores = np.array([as_number(person["score"], "a score") for person in people], float)
            box_scores = [as_number(person.get("box_score", person["score"]), "a box_score") for person in people]
            boxes = None
            if people and all("bbox" in person for person in people):
                boxes = np.array([as_box(person["bbox"], "a bbox") for person in people], float)
                if (boxes[:, 2:] < 0).any():
                    raise ValueError("a bbox must be x, y, width, height, got a width or height below 0")
                boxes[:, 2:] += boxes[:, :2]
        except KeyError as missing:
            raise ValueError(f"{folder / NAME}: image {stem}: {missing} is missing") from None
        except (ValueError, MemoryError) as error:
            raise ValueError(f"{folder / NAME}: image {stem}: {error}") from None
        return Prediction(label_map, person_maps, scores, boxes=boxes, box_scores=np.array(box_scores, float))

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        images, annotations = self._written.setdefault(folder, ([], []))
        height, width = prediction.label_map.shape
        images.append({"id": stem, "height": height, "width": width, "parts": _masks(prediction.label_map)})
        rows = (
            prediction.scores.tolist(),
            np.asarray(prediction.box_scores).tolist(),
            np.asarray(prediction.boxes).tolist(),
        )
        for person, score, box_score, (x1, y1, x2, y2) in zip(np.asarray(prediction.person_maps), *rows, strict=True):
            entry = {"image_id": stem, "category_id": 1, "score": score, "box_score": box_score}
            annotations.append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1], "parts": _masks(person)})

    def finish(self, folder: Path, others: Sequence["CocoJson"] = ()) -> None:  # type: ignore[override]  # its own kind
        """Write the file, with images in the order of their ids.

        Args:
            folder: the folder.
            others: the formats of other processes, whose images are written to the same file.
        """
        images, annotations = [], []
        for format in (self, *others):
            more_images, more_annotations = format._written.pop(folder, ([], []))
            images += more_images
            annotations += more_annotations
        images.sort(key=lambda image: image["id"])
        annotations.sort(key=lambda person: person["image_id"])
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"images": images, "annotations": annotations})
        (folder / NAME).write_text(text + "\n", encoding="utf-8")
