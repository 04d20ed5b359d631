"""The prediction for one image, and functions to read and write the files of the formats."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps, PersonMapsLike, as_array
from rpcnn.labelmaps.png import read_byte_png
from rpcnn.pictures import PictureError, opened


@dataclass
class Prediction:
    """The prediction for one image of H × W pixels: N people in any order, and the label map of the whole image."""

    label_map: np.ndarray
    """uint8 [H, W]: the combined label map."""
    person_maps: np.ndarray | NumberedPersonMaps
    """uint8 [N, H, W]: the label map of each person, 0 outside the person; :class:`NumberedPersonMaps` from formats
    with person numbers."""
    scores: np.ndarray
    """float64 [N]: the scores that AP^p, AP^r and AP^h rank by."""
    boxes: np.ndarray | None = None
    """float64 [N, 4] x1 y1 x2 y2 in pixels, width = x2 − x1. None becomes the bounding boxes of the person maps."""
    box_scores: np.ndarray | None = None
    """float64 [N]: the scores that AP^bbox ranks by. None becomes `scores`."""
    part_maps: np.ndarray | NumberedPersonMaps | None = None
    """uint8 [M, H, W]: part instances of one label each, from formats with `knows_people` False. None: the parts of the
    people."""
    part_scores: np.ndarray | None = None
    """float64 [M]: the scores of the part instances."""

    def __post_init__(self) -> None:
        if self.boxes is None:
            self.boxes = person_boxes(self.person_maps)
        if self.box_scores is None:
            self.box_scores = self.scores

    @classmethod
    def of(cls, result: Any) -> "Prediction":
        """Convert a :class:`rpcnn.ParsingResult`."""
        names = ("label_map", "person_maps", "scores", "boxes", "box_scores")
        label_map, person_maps, scores, boxes, box_scores = (as_array(getattr(result, name)) for name in names)
        boxes, box_scores = boxes.astype(float), box_scores.astype(float)
        return cls(label_map, person_maps, scores.astype(float), boxes=boxes, box_scores=box_scores)


def read_png(path: Path, wide: bool = False) -> np.ndarray:
    """Read the values of a gray or palette PNG.

    Args:
        path: the file.
        wide: whether values above 255 are allowed.

    Returns:
        [H, W], uint8 or, if `wide`, any integer dtype.

    Raises:
        ValueError: the file is missing, cannot be read, has color channels or, unless `wide`, more than 8 bits. The
            message begins with its path.
    """
    try:
        values = read_byte_png(path)
        if values is not None:
            return values
        with opened(path, formats=("PNG",)) as picture:
            values = np.array(picture)
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except (PictureError, OSError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    if values.ndim != 2:
        raise ValueError(f"{path}: must hold a value per pixel (gray or palette PNG), got {list(values.shape)}")
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if not wide and values.dtype != np.uint8:
        raise ValueError(f"{path}: must have 8 bits, got {values.dtype}")
    return values


def write_png(path: Path, values: np.ndarray) -> None:
    """Write integers [H, W] as a gray PNG of 8 bits, or of 16 bits if a value exceeds 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16 if values.max(initial=0) > 255 else np.uint8)).save(path)


def read_json(path: Path) -> dict | list:
    """Read a JSON file. Raises ValueError with its path if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from None


def read_columns(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Read a text file of numbers with one column per name, skipping empty lines.

    Returns:
        float64 [lines, columns].

    Raises:
        ValueError: the file is missing, or a line has other columns. The message has the path and the line number.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != len(names):
            raise ValueError(f"{path}: line {number} must be '{' '.join(names)}', got {line!r}")
        rows.append(row)
    return np.array(rows, float).reshape(-1, len(names))


def flatten(person_maps: PersonMapsLike, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flatten overlapping person maps [N, H, W] to one label map, with the best score on top.

    Returns:
        Labels uint8 [H, W], and person numbers int32 [H, W]: i + 1 where person i is on top, 0 without a person.
    """
    maps = np.asarray(person_maps)
    labels, numbers = np.zeros(maps.shape[1:], np.uint8), np.zeros(maps.shape[1:], np.int32)
    for i in np.argsort(scores, kind="stable"):
        on_person = maps[i] > 0
        labels[on_person], numbers[on_person] = maps[i][on_person], i + 1
    return labels, numbers
