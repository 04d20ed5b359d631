"""Formats with PNGs and a JSON file for each image: that of rpcnn.predict, and one with a map for each person."""

import json
from pathlib import Path

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps

from .format import Format
from .prediction import Prediction, flatten, read_json, read_png, write_png


def _read_people(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read the scores [N], box scores [N] and boxes [N, 4] (or None) of the people from <stem>.json."""
    record = read_json(path)
    people = record.get("people") if isinstance(record, dict) else None
    if not isinstance(people, list) or not all(isinstance(p, dict) and "score" in p for p in people):
        raise ValueError(f"{path}: must hold 'people', a list of objects with a 'score'")
    scores = np.array([p["score"] for p in people], float)
    box_scores = np.array([p.get("box_score", p["score"]) for p in people], float)
    have_boxes = people and all("box" in p for p in people)
    return scores, box_scores, np.array([p["box"] for p in people], float).reshape(-1, 4) if have_boxes else None


def _people_json(prediction: Prediction) -> str:
    rows = zip(
        prediction.scores.tolist(),
        np.asarray(prediction.box_scores).tolist(),
        np.asarray(prediction.boxes).tolist(),
        strict=True,
    )
    return json.dumps({"people": [dict(score=s, box_score=b, box=box) for s, b, box in rows]}, indent=1)


class InstanceMaps(Format):
    """<stem>_labels.png, <stem>_instances.png (i + 1 for person i of the JSON) and <stem>.json, as predict writes them.

    A pixel belongs to one person, so AP^p, PCP and AP^r differ from those of overlapping maps.
    """

    overlapping = False
    knows_people = True

    def detect(self, folder: Path) -> bool:
        return any(folder.glob("*_instances.png"))

    def stems(self, folder: Path) -> list[str]:
        return sorted(path.name.removesuffix("_instances.png") for path in folder.glob("*_instances.png"))

    def read(self, folder: Path, stem: str) -> Prediction:
        label_map = read_png(folder / f"{stem}_labels.png")
        numbers = read_png(folder / f"{stem}_instances.png", wide=True)
        scores, box_scores, boxes = _read_people(folder / f"{stem}.json")
        if numbers.shape != label_map.shape or numbers.max(initial=0) > len(scores):
            raise ValueError(
                f"{folder / f'{stem}_instances.png'}: must have the labels' size {label_map.shape} and numbers up to "
                f"the JSON's {len(scores)} people, got {numbers.shape} and {numbers.max(initial=0)}"
            )
        return Prediction(
            label_map, NumberedPersonMaps(label_map, numbers, len(scores)), scores, boxes=boxes, box_scores=box_scores
        )

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        labels, numbers = flatten(prediction.person_maps, prediction.scores)
        write_png(folder / f"{stem}_labels.png", np.where(numbers > 0, labels, prediction.label_map))
        write_png(folder / f"{stem}_instances.png", numbers)
        (folder / f"{stem}.json").write_text(_people_json(prediction) + "\n", encoding="utf-8")


class PersonMaps(Format):
    """<stem>_labels.png, <stem>_person_<i>.png (the label map of person i = 1, 2, …) and <stem>.json; lossless."""

    overlapping = True
    knows_people = True

    def detect(self, folder: Path) -> bool:
        return any(folder.glob("*_labels.png")) and not any(folder.glob("*_instances.png"))

    def stems(self, folder: Path) -> list[str]:
        return sorted(path.name.removesuffix("_labels.png") for path in folder.glob("*_labels.png"))

    def read(self, folder: Path, stem: str) -> Prediction:
        label_map = read_png(folder / f"{stem}_labels.png")
        scores, box_scores, boxes = _read_people(folder / f"{stem}.json")
        person_maps = np.zeros((len(scores), *label_map.shape), np.uint8)
        for i, person in enumerate(person_maps, 1):
            path = folder / f"{stem}_person_{i}.png"
            values = read_png(path)
            if values.shape != label_map.shape:
                raise ValueError(f"{path}: must have the labels' size {label_map.shape}, got {values.shape}")
            person[:] = values
        return Prediction(label_map, person_maps, scores, boxes=boxes, box_scores=box_scores)

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        write_png(folder / f"{stem}_labels.png", prediction.label_map)
        for i, person in enumerate(np.asarray(prediction.person_maps), 1):
            write_png(folder / f"{stem}_person_{i}.png", person)
        (folder / f"{stem}.json").write_text(_people_json(prediction) + "\n", encoding="utf-8")
