"""What is known about one image: every key of a sample with its shape, dtype and unit.

H × W pixels, n people.
"""

from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from torch import Tensor

from rpcnn.labelmaps.people import NumberedPersonMaps


class Target(TypedDict):
    """The truth of one image, as `RPRCNN.forward` takes it in training."""

    boxes: Tensor
    """float32 [n, 4], x1 y1 x2 y2 in pixels, x2 and y2 exclusive: drawn around each person's map."""
    person_maps: Tensor
    """uint8 [n, H, W]: one label map per person, 0 elsewhere, 255 ignored. They may overlap (MHP-v2)."""
    label_map: Tensor
    """uint8 [H, W]: the label of whoever is in front, 0 background, 255 ignored."""
    id: NotRequired[str]
    """The stem of the image's file."""
    seed: NotRequired[int]
    """Seed of the model's random draws for this image; without it they come from torch's global generator."""
    padded_to: NotRequired[tuple[int, int]]
    """(height, width) that every image of the step fits into, those of other processes included."""


class Sample(Target):
    """One image of a data set with its truth."""

    image: Tensor
    """uint8 [3, H, W] RGB."""


class Truth(NamedTuple):
    """What metrics compare a prediction of one image with, as numpy arrays or tensors."""

    label_map: np.ndarray | Tensor
    """uint8 [H, W], see `Target`."""
    person_maps: np.ndarray | Tensor | NumberedPersonMaps
    """uint8 [n, H, W], see `Target`, or the same people numbered."""
    boxes: np.ndarray | Tensor
    """[n, 4], see `Target`."""

    @classmethod
    def of(cls, target: Target) -> "Truth":
        """That of a target or a sample."""
        return cls(target["label_map"], target["person_maps"], target["boxes"])
