"""The prediction for one image that every format holds, and the PNG and text files that formats are made of."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps, PersonMapsLike, as_array
from rpcnn.labelmaps.png import read_byte_png


@dataclass
class Prediction:
    """The prediction for one image of H × W pixels: N people in any order, and the label map of the whole image."""

    label_map: np.ndarray
    """uint8 [H, W]: the combined label map."""
    person_maps: np.ndarray | NumberedPersonMaps
    """uint8 [N, H, W]: each person's own label map, 0 elsewhere; numbered where the format numbers them."""
    scores: np.ndarray
    """float64 [N]: what AP^p, AP^r and AP^h rank by."""
    boxes: np.ndarray | None = None
    """float64 [N, 4] x1 y1 x2 y2 in pixels, width = x2 − x1; None: the boxes that enclose the person maps."""
    box_scores: np.ndarray | None = None
    """float64 [N]: what AP^bbox ranks by; None: `scores`."""
    part_maps: np.ndarray | NumberedPersonMaps | None = None
    """uint8 [M, H, W]: part instances of one label each, from formats with `knows_people` False; None: the people's
    own parts."""
    part_scores: np.ndarray | None = None
    """float64 [M]."""

    def __post_init__(self) -> None:
        if self.boxes is None:
            self.boxes = person_boxes(self.person_maps)
        if self.box_scores is None:
            self.box_scores = self.scores

    @classmethod
    def of(cls, result: Any) -> "Prediction":
        """That of a :class:`rpcnn.ParsingResult`."""
        names = ("label_map", "person_maps", "scores", "boxes", "box_scores")
        label_map, person_maps, scores, boxes, box_scores = (as_array(getattr(result, name)) for name in names)
        return cls(label_map, person_maps, scores.astype(float), boxes.astype(float), box_scores.astype(float))


def read_png(path: Path, wide: bool = False) -> np.ndarray:
    """The values [H, W] of a gray or palette PNG: uint8, or any integers where `wide`.

    Raises ValueError that names the file: not there, not readable, colors in place of values, values above 255.
    """
    try:
        values = read_byte_png(path)
        if values is not None:
            return values
        with Image.open(path) as picture:
            values = np.asarray(picture)
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    if values.ndim != 2:
        raise ValueError(f"{path}: must hold a value per pixel (gray or palette PNG), got {list(values.shape)}")
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if not wide and values.dtype != np.uint8:
        raise ValueError(f"{path}: must have 8 bits, got {values.dtype}")
    return values


def write_png(path: Path, values: np.ndarray) -> None:
    """Integers [H, W] as a gray PNG of 8 bits, or 16 where one exceeds 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16 if values.max(initial=0) > 255 else np.uint8)).save(path)


def read_json(path: Path) -> dict | list:
    """Raises ValueError that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from None


def read_columns(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Lines of numbers, one column a name: float64 [lines, columns]. Raises ValueError that names file and line."""
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
    """Overlapping people [N, H, W] as one layer, the best on top.

    Returns:
        Labels uint8 [H, W], and person numbers int32 [H, W]: i + 1 where person i is on top, 0 where nobody is.
    """
    maps = np.asarray(person_maps)
    labels, numbers = np.zeros(maps.shape[1:], np.uint8), np.zeros(maps.shape[1:], np.int32)
    for i in np.argsort(scores, kind="stable"):
        on_person = maps[i] > 0
        labels[on_person], numbers[on_person] = maps[i][on_person], i + 1
    return labels, numbers
