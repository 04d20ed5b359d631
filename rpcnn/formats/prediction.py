"""The prediction for one image, and functions to read and write the files of the formats."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps, PersonMapsLike, as_array
from rpcnn.labelmaps.read import read_map
from rpcnn.pictures import PictureError


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
    """Read the values of a gray or palette PNG, by the rule of :mod:`rpcnn.labelmaps.read`.

    Args:
        path: the file.
        wide: whether values above 255 are allowed.

    Returns:
        [H, W], uint8 or, if `wide`, any integer dtype.

    Raises:
        ValueError: the file is missing, cannot be read, is no such map or, unless `wide`, has values above 255. The
            message begins with its path.
    """
    try:
        values = read_map(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except (PictureError, OSError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: a map {error}") from None
    if wide or values.dtype == np.uint8:
        return values
    if values.min(initial=0) < 0 or values.max(initial=0) > 255:
        raise ValueError(f"{path}: labels must be in 0..255, got {values.min()}..{values.max()}")
    return values.astype(np.uint8)


def write_png(path: Path, values: np.ndarray) -> None:
    """Write integers [H, W] as a gray PNG of 8 bits, or of 16 bits if a value exceeds 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16 if values.max(initial=0) > 255 else np.uint8)).save(path)


MOST_PEOPLE = 65_535
"""Of one image: the largest person number of a map."""


def as_number(value: Any, name: str) -> float:
    """Convert a JSON value to float. Raises ValueError, which names it, unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        raise ValueError(f"{name} must be a finite number, got {_shortened(value)}")
    return float(value)


def as_integer(value: Any, name: str, low: int, high: int) -> int:
    """Return a JSON value. Raises ValueError, which names it, unless it is an integer in low..high."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer in {low}..{high}, got {_shortened(value)}")
    return value


def as_entries(value: Any, name: str) -> list[dict]:
    """Return a JSON value. Raises ValueError, which names it, unless it is a list of objects."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list of objects, got {_shortened(value)}")
    for i, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise ValueError(f"{name}[{i}] must be an object, got {_shortened(entry)}")
    return value


def as_box(value: Any, name: str) -> list[float]:
    """Convert four JSON numbers. Raises ValueError, which names them, unless they are finite."""
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"{name} must be four numbers, got {_shortened(value)}")
    return [as_number(number, name) for number in value]


def _shortened(value: Any) -> str:
    text = repr(value) if value is None or isinstance(value, str | int | float) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"


def read_columns(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Read a text file of numbers with one column per name, skipping empty lines.

    Returns:
        float64 [lines, columns].

    Raises:
        ValueError: the file is missing, or a line has other columns or no finite numbers. The message
            has the path and the line number.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != len(names) or not np.isfinite(row).all() or "_" in line:
            raise ValueError(f"{path}: line {number} must be '{' '.join(names)}', got {line!r}")
        rows.append(row)
    return np.array(rows, float).reshape(-1, len(names))


def flatten(person_maps: PersonMapsLike, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flatten overlapping person maps [N, H, W] to one label map, with the best score on top, the first of equal ones.

    Returns:
        Labels uint8 [H, W], and person numbers int32 [H, W]: i + 1 where person i is on top, 0 without a person.
    """
    maps = np.asarray(person_maps)
    labels, numbers = np.zeros(maps.shape[1:], np.uint8), np.zeros(maps.shape[1:], np.int32)
    for i in np.argsort(-np.asarray(scores), kind="stable")[::-1]:
        on_person = maps[i] > 0
        labels[on_person], numbers[on_person] = maps[i][on_person], i + 1
    return labels, numbers
