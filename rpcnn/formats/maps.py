"""Formats with PNGs for each image: a label map alone, that of rpcnn.predict, and one with a map for each person."""

import json
from pathlib import Path

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.pictures import files_in
from rpcnn.strict_json import read_json

from .format import Format
from .prediction import MOST_PEOPLE, Prediction, as_box, as_number, flatten, read_png, write_png


def _read_people(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read the scores [N], box scores [N] and boxes [N, 4] (or None) of the people from <stem>.json."""
    record = read_json(path)
    people = record.get("people") if isinstance(record, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise ValueError(f"{path}: must hold 'people', a list of objects with a 'score'")
    if len(people) > MOST_PEOPLE:
        raise ValueError(f"{path}: must hold at most {MOST_PEOPLE} people, got {len(people)}")
    scores, box_scores, boxes = [], [], []
    try:
        for i, person in enumerate(people, 1):
            if "score" not in person:
                raise ValueError(f"person {i} has no 'score'")
            scores.append(as_number(person["score"], f"the score of person {i}"))
            box_scores.append(as_number(person.get("box_score", person["score"]), f"the box_score of person {i}"))
            if "box" in person:
                boxes.append(as_box(person["box"], f"the box of person {i}"))
                x1, y1, x2, y2 = boxes[-1]
                if x2 < x1 or y2 < y1:
                    raise ValueError(f"the box of person {i} must have x1 <= x2 and y1 <= y2, got {boxes[-1]}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    have_boxes = people and len(boxes) == len(people)
    return np.array(scores, float), np.array(box_scores, float), np.array(boxes, float) if have_boxes else None


def _people_json(prediction: Prediction) -> str:
    rows = zip(
        prediction.scores.tolist(),
        np.asarray(prediction.box_scores).tolist(),
        np.asarray(prediction.boxes).tolist(),
        strict=True,
    )
    return json.dumps({"people": [dict(score=s, box_score=b, box=box) for s, b, box in rows]}, indent=1)


class LabelMaps(Format):
    """<stem>.png, the label map of the image, and nothing else, as most systems for semantic parsing write it.

    Nobody knows the people: only mIoU and the accuracies are defined.
    """

    overlapping = False
    knows_people = False
    knows_instances = False

    def detect(self, folder: Path) -> bool:
        stems = self.stems(folder)
        return bool(stems) and not any(stem.endswith(("_labels", "_instances")) for stem in stems)

    def stems(self, folder: Path) -> list[str]:
        return [path.stem for path in files_in(folder, "*.png")]

    def read(self, folder: Path, stem: str) -> Prediction:
        label_map = read_png(folder / f"{stem}.png")
        return Prediction(label_map, np.zeros((0, *label_map.shape), np.uint8), np.zeros(0))

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        write_png(folder / f"{stem}.png", prediction.label_map)


class InstanceMaps(Format):
    """<stem>_labels.png, <stem>_instances.png (i + 1 for person i of the JSON) and <stem>.json, as predict writes them.

    A pixel belongs to one person, so AP^p, PCP and AP^r differ from those of overlapping maps.
    """

    overlapping = False
    knows_people = True

    def detect(self, folder: Path) -> bool:
        return bool(files_in(folder, "*_instances.png"))

    def stems(self, folder: Path) -> list[str]:
        return sorted(path.name.removesuffix("_instances.png") for path in files_in(folder, "*_instances.png"))

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
        return bool(files_in(folder, "*_labels.png")) and not files_in(folder, "*_instances.png")

    def stems(self, folder: Path) -> list[str]:
        return sorted(path.name.removesuffix("_labels.png") for path in files_in(folder, "*_labels.png"))

    def read(self, folder: Path, stem: str) -> Prediction:
        label_map = read_png(folder / f"{stem}_labels.png")
        scores, box_scores, boxes = _read_people(folder / f"{stem}.json")
        maps = []  # one by one: memory for as many as there are files, not as the JSON announces
        for i in range(1, len(scores) + 1):
            path = folder / f"{stem}_person_{i}.png"
            maps.append(read_png(path))
            if maps[-1].shape != label_map.shape:
                raise ValueError(f"{path}: must have the labels' size {label_map.shape}, got {maps[-1].shape}")
        person_maps = np.stack(maps) if maps else np.zeros((0, *label_map.shape), np.uint8)
        return Prediction(label_map, person_maps, scores, boxes=boxes, box_scores=box_scores)

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        write_png(folder / f"{stem}_labels.png", prediction.label_map)
        for i, person in enumerate(np.asarray(prediction.person_maps), 1):
            write_png(folder / f"{stem}_person_{i}.png", person)
        (folder / f"{stem}.json").write_text(_people_json(prediction) + "\n", encoding="utf-8")
