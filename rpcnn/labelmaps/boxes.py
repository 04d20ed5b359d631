"""Bounding boxes of label maps: x1, y1, x2, y2 in pixels, x2 and y2 exclusive; all zeros if there is no label."""

import numpy as np

from . import compiled
from .people import NumberedPersonMaps, PersonMapsLike


def person_boxes(person_maps: PersonMapsLike) -> np.ndarray:
    """Compute the bounding box of each person's labels.

    Args:
        person_maps: [N, H, W] or :class:`NumberedPersonMaps`.

    Returns:
        float64 [N, 4].
    """
    if compiled.core and isinstance(person_maps, NumberedPersonMaps):
        return compiled.core.boxes(person_maps.label_map, person_maps.numbers, person_maps.count)
    return np.array([enclosing_box(one) for one in np.asarray(person_maps)], float).reshape(-1, 4)


def enclosing_box(label_map: np.ndarray) -> tuple[float, float, float, float]:
    """Compute the bounding box of the labels of a map [H, W]."""
    rows, columns = np.flatnonzero(label_map.any(1)), np.flatnonzero(label_map.any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
