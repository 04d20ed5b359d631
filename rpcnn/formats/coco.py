"""One JSON file in COCO's style for all images, with masks as run-length codes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rpcnn.labelmaps.run_lengths import encode, paint_runs

from .format import Format
from .prediction import Prediction, read_json

NAME = "predictions.json"


def _masks(label_map: np.ndarray) -> list[dict]:
    present = np.flatnonzero(np.bincount(label_map.ravel(), minlength=1))
    size = list(label_map.shape)
    return [
        {"category_id": int(k), "segmentation": {"size": size, "counts": encode(label_map == k)}} for k in present if k
    ]


def _paint(masks: list[dict], label_map: np.ndarray) -> None:
    """Paint the masks, later ones over earlier ones, into label_map [H, W]."""
    columns = np.zeros(label_map.shape[::-1], np.uint8)
    for mask in masks:
        label, segmentation = mask["category_id"], mask["segmentation"]
        if not 1 <= label <= 254:
            raise ValueError(f"category_id must lie in 1..254, got {label}")
        if tuple(segmentation["size"]) != label_map.shape:
            raise ValueError(f"a segmentation's size must be the image's {label_map.shape}, got {segmentation['size']}")
        paint_runs(columns, segmentation["counts"], label)
    used = np.flatnonzero(columns.any(1))
    span = slice(used[0], used[-1] + 1) if len(used) else slice(0)  # only these: transposing a whole map is slow
    label_map[:, span] = columns[span].T


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
        images: dict[str, tuple[dict, list]] = {str(image.get("id")): (image, []) for image in record["images"]}
        for person in record["annotations"]:
            if str(person.get("image_id")) not in images:
                raise ValueError(f"{folder / NAME}: an annotation's image_id {person.get('image_id')!r} is no image's")
            images[str(person["image_id"])][1].append(person)
        self._read[folder] = images
        return sorted(images)

    def read(self, folder: Path, stem: str) -> Prediction:
        if folder not in self._read:
            self.stems(folder)
        try:
            image, people = self._read[folder][stem]
            size = int(image["height"]), int(image["width"])
            label_map, person_maps = np.zeros(size, np.uint8), np.zeros((len(people), *size), np.uint8)
            _paint(image["parts"], label_map)
            for person, person_map in zip(people, person_maps, strict=True):
                _paint(person["parts"], person_map)
            scores = np.array([person["score"] for person in people], float)
            box_scores = np.array([person.get("box_score", person["score"]) for person in people], float)
            boxes = None
            if people and all("bbox" in person for person in people):
                boxes = np.array([person["bbox"] for person in people], float).reshape(-1, 4)
                boxes[:, 2:] += boxes[:, :2]
        except KeyError as missing:
            raise ValueError(f"{folder / NAME}: image {stem}: {missing} is missing") from None
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{folder / NAME}: image {stem}: {error}") from None
        return Prediction(label_map, person_maps, scores, boxes=boxes, box_scores=box_scores)

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
