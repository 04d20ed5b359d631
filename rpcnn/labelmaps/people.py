"""Person maps: one label map per person, or a label map and a map of person numbers if people do not overlap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike


@dataclass(frozen=True)
class NumberedPersonMaps:
    """N people who do not overlap, as one map of labels and one map of person numbers.

    `np.asarray` converts it to person maps [N, H, W]. The metrics read it directly, which saves making and reading N
    maps.

    Raises:
        ValueError: the shapes differ, a label is not an integer in 0..255, or a number is outside 0..N.
    """

    label_map: np.ndarray
    """uint8 [H, W]."""
    numbers: np.ndarray
    """uint8 or uint16 [H, W]: i + 1 where the label belongs to person i, 0 where it belongs to no person. The
    constructor takes any integer dtype."""
    count: int
    """N, at most 65535."""

    def __post_init__(self) -> None:
        label_map, numbers = as_labels("NumberedPersonMaps: label_map", self.label_map), as_array(self.numbers)
        if label_map.ndim != 2 or numbers.shape != label_map.shape:
            raise ValueError(
                "NumberedPersonMaps: label_map and numbers must have one shape [H, W], "
                f"got {list(label_map.shape)} and {list(numbers.shape)}"
            )
        low, high = 0 if numbers.dtype.kind == "u" else numbers.min(initial=0), numbers.max(initial=0)
        if numbers.dtype.kind not in "iub" or low < 0 or high > self.count or self.count > 65535:
            raise ValueError(
                f"NumberedPersonMaps: numbers must be integers in 0..{self.count} (at most 65535), "
                f"got {numbers.dtype} in {low}..{high}"
            )
        numbers = np.ascontiguousarray(numbers, np.uint8 if self.count <= 255 else np.uint16)
        object.__setattr__(self, "label_map", label_map)
        object.__setattr__(self, "numbers", numbers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        return (self.count, *self.label_map.shape)

    def __len__(self) -> int:
        return self.count

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        maps = np.zeros(self.shape, np.uint8)
        for number, person in enumerate(maps, 1):
            np.copyto(person, self.label_map, where=self.numbers == number)
        return maps if dtype is None else maps.astype(dtype)


PersonMapsLike = ArrayLike | NumberedPersonMaps
"""[N, H, W] as arrays, lists, or tensors of any device; or numbered."""


def as_array(values: Any) -> np.ndarray:
    """Convert a numpy array, a list or a tensor on any device to a numpy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def as_person_maps(person_maps: Any) -> "np.ndarray | NumberedPersonMaps":
    """Convert person maps to a numpy array; :class:`NumberedPersonMaps` are returned unchanged."""
    return person_maps if isinstance(person_maps, NumberedPersonMaps) else as_array(person_maps)


def as_labels(name: str, labels: Any) -> np.ndarray:
    """Convert labels of any integer dtype to a contiguous uint8 array.

    Raises:
        ValueError: a label is not an integer in 0..255. The message begins with `name`.
    """
    labels = as_array(labels)
    if labels.dtype == np.uint8:
        return np.ascontiguousarray(labels)
    if labels.dtype.kind not in "iu" or (labels.size and not 0 <= labels.min() <= labels.max() <= 255):
        found = labels.dtype if labels.dtype.kind not in "iu" else f"{labels.min()}..{labels.max()}"
        raise ValueError(f"{name} must hold integer labels in 0..255, got {found}")
    return np.ascontiguousarray(labels, np.uint8)
