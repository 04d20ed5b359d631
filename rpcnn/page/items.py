"""What the page shows of one image: maps of the truth and of each prediction, and how well they agree."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rpcnn.labels import LabelSet

FOUND = 0.3
"""IoU of the masks from which a predicted person counts as a true one."""
COVERED = 0.5
"""Part of a true person's pixels from which a prediction covers it."""
LEAST = 50  # pixels, so that specks are no failures
TAGS = ("missed person", "false person", "merged people", "left and right swapped")


@dataclass
class Maps:
    """A label map and the people in it.

    Attributes:
        labels: uint8 [H, W].
        instances: uint8 or uint16 [H, W], 0 nobody, i + 1 person i.
        people: for each person a dictionary; predictions have box, score, box_score and iou_score.
    """

    labels: np.ndarray
    instances: np.ndarray
    people: list[dict] = field(default_factory=list)


@dataclass
class Item:
    """One image.

    Attributes:
        id: its name.
        photo: uint8 [H, W, 3] RGB.
        predictions: one for each model, in the order of the page.
        truth: None if it is not known.
    """

    id: str
    photo: np.ndarray
    predictions: list[Maps]
    truth: Maps | None = None


def compare(truth: Maps, predicted: Maps, labels: LabelSet) -> dict:
    """How well a prediction agrees with the truth.

    Returns:
        iou: mean IoU in 0..1 over the classes of truth or prediction; classes: IoU by class number; people: IoU of
        each predicted person's mask with the true person that it overlaps most; tags: names of `TAGS`.
    """
    known = truth.labels != 255
    classes = {}
    for label in range(labels.num_classes):
        wanted, got = (truth.labels == label) & known, (predicted.labels == label) & known
        union = np.count_nonzero(wanted | got)
        if union:
            classes[label] = round(np.count_nonzero(wanted & got) / union, 4)
    overlap, true_sizes, sizes = overlaps(truth.instances, predicted.instances)
    union = true_sizes[:, None] + sizes[None] - overlap
    iou = overlap / np.maximum(union, 1)
    tags = []
    if any(size >= LEAST and (not len(sizes) or iou[i].max() < FOUND) for i, size in enumerate(true_sizes)):
        tags.append(TAGS[0])
    if any(size >= LEAST and (not len(true_sizes) or iou[:, j].max() < FOUND) for j, size in enumerate(sizes)):
        tags.append(TAGS[1])
    covered = overlap >= COVERED * np.maximum(true_sizes, LEAST)[:, None]
    if (covered.sum(0) > 1).any():
        tags.append(TAGS[2])
    if any(is_swapped(truth, predicted, int(np.argmax(row)), i, labels) for i, row in enumerate(iou) if row.any()):
        tags.append(TAGS[3])
    best = [round(float(iou[:, j].max()), 4) if len(true_sizes) else 0.0 for j in range(len(sizes))]
    mean = sum(classes.values()) / len(classes) if classes else 1.0
    return {"iou": round(mean, 4), "classes": classes, "people": best, "tags": tags}


def overlaps(true_instances: np.ndarray, instances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Common pixels [true people, predicted people], and the pixels of each true and each predicted person."""
    rows, columns = int(true_instances.max(initial=0)) + 1, int(instances.max(initial=0)) + 1
    pairs = true_instances.astype(np.int64) * columns + instances
    counts = np.bincount(pairs.ravel(), minlength=rows * columns).reshape(rows, columns)
    return counts[1:, 1:], counts[1:].sum(1), counts[:, 1:].sum(0)


def is_swapped(truth: Maps, predicted: Maps, person: int, true_person: int, labels: LabelSet) -> bool:
    """Whether more left and right parts of a person are exchanged than right."""
    both = (truth.instances == true_person + 1) & (predicted.instances == person + 1)
    wanted, got = truth.labels[both], predicted.labels[both]
    table = labels.flip_table()
    sided = table[wanted] != wanted
    swapped = np.count_nonzero(got[sided] == table[wanted[sided]])
    return swapped >= LEAST and swapped > np.count_nonzero(got[sided] == wanted[sided])


def confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels [true class, predicted class]; unknown true pixels are left out."""
    known = truth < num_classes
    pairs = truth[known].astype(np.int64) * num_classes + predicted[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def instances_of(person_maps: Sequence[np.ndarray] | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Person maps [n, H, W], the last in front, as one map of their numbers."""
    instances = np.zeros(shape, np.uint8 if len(person_maps) < 256 else np.uint16)
    for number, person in enumerate(person_maps, start=1):
        instances[(person > 0) & (person != 255)] = number
    return instances
