"""The types of samples and of their ground truth. An image has H × W pixels and n people."""

from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps


class Target(TypedDict):
    """The ground truth of one image, as `RPRCNN.forward` takes it in training."""

    boxes: Tensor
    """float32 [n, 4], x1 y1 x2 y2 in pixels, x2 and y2 exclusive: the bounding box of each person's map."""
    person_maps: Tensor
    """uint8 [n, H, W]: one label map per person, 0 outside the person, 255 ignored. They may overlap (MHP-v2)."""
    label_map: Tensor
    """uint8 [H, W]: the label of the person in front, 0 background, 255 ignored."""
    id: NotRequired[str]
    """The stem of the image's file."""
    seed: NotRequired[int]
    """Seed of the model's random draws for this image; without it they use torch's global generator."""
    padded_to: NotRequired[tuple[int, int]]
    """The largest (height, width) in the batch, over all processes."""


class Sample(Target):
    """One image of a data set with its ground truth."""

    image: Tensor
    """uint8 [3, H, W] RGB."""


def make_sample(
    id: str,
    image: np.ndarray,
    person_maps: np.ndarray | NumberedPersonMaps,
    label_map: np.ndarray | None = None,
) -> Sample:
    """Make a sample from arrays. People without labels are left out.

    Args:
        id: the name of the image, used in the names of output files.
        image: uint8 [H, W, 3] RGB.
        person_maps: uint8 [n, H, W], a label map per person; or `NumberedPersonMaps(label_map, numbers, count)` for
            people who do not overlap.
        label_map: uint8 [H, W]. By default that of the numbered maps, or the person maps on top of each other, with the
            last person in front.

    Raises:
        ValueError: an array has the wrong shape or dtype.
    """
    maps = np.asarray(person_maps)
    if label_map is None and isinstance(person_maps, NumberedPersonMaps):
        label_map = person_maps.label_map
    elif label_map is None:
        label_map = np.zeros(maps.shape[1:], np.uint8)
        for person in maps:
            np.copyto(label_map, person, where=person > 0)
    for name, values, shape in (
        ("image", image, (*image.shape[:2], 3)),
        ("person_maps", maps, (len(maps), *image.shape[:2])),
        ("label_map", label_map, image.shape[:2]),
    ):
        if values.dtype != np.uint8 or values.shape != shape:
            raise ValueError(
                f"make_sample: {name} of {id!r} must be uint8 {list(shape)}, got {values.dtype} {list(values.shape)}"
            )
    boxes = person_boxes(person_maps)
    has_labels = boxes.any(1)
    return Sample(
        image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        boxes=torch.tensor(boxes[has_labels], dtype=torch.float32),
        person_maps=torch.from_numpy(maps[has_labels]),
        label_map=torch.from_numpy(np.ascontiguousarray(label_map)),
        id=id,
    )


class Truth(NamedTuple):
    """The ground truth of one image for metrics, as numpy arrays or tensors."""

    label_map: np.ndarray | Tensor
    """uint8 [H, W], see `Target`."""
    person_maps: np.ndarray | Tensor | NumberedPersonMaps
    """uint8 [n, H, W], see `Target`, or :class:`NumberedPersonMaps`."""
    boxes: np.ndarray | Tensor
    """[n, 4], see `Target`."""

    @classmethod
    def of(cls, target: Target) -> "Truth":
        """Take the ground truth from a target or a sample."""
        return cls(target["label_map"], target["person_maps"], target["boxes"])
