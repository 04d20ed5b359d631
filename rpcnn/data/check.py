"""Checks a data set: lists every fault, and computes statistics of people and parts."""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from rpcnn.labels import IGNORE, LabelSet
from rpcnn.runtime.processors import usable_processors

from .dataset import PeopleDataset
from .datasets import detect_dataset, make_split
from .files import DataFault


@dataclass
class Report:
    """The findings on one split.

    `faults` (id, message) are the reasons why images are left out, `notes` (id, message) suspicious findings on
    everything else, and `unusable` says why the split as a whole cannot be trained on. `people` counts images by their
    number of people, `pixels` int64 [K] pixels per class over all person maps, and `images_with` int64 [K] the images
    in which a class occurs.
    """

    name: str
    labels: LabelSet
    images: int = 0
    unusable: str = ""
    faults: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    people: Counter = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    pixels: np.ndarray = None
    images_with: np.ndarray = None

    def __post_init__(self):
        self.pixels = np.zeros(self.labels.num_classes, np.int64)
        self.images_with = np.zeros(self.labels.num_classes, np.int64)

    def text(self) -> str:
        """Format the report: the findings, then people per image and pixels per class."""
        bad = len({name for name, _ in self.faults})
        lines = [f"{self.name}: {self.images} images, {self.images - bad} usable, {bad} left out"]
        lines += [f"\nfault: {self.unusable}"] if self.unusable else []
        for title, findings in (
            ("faults: the image is left out", self.faults),
            ("notes: no image is left out", self.notes),
        ):
            lines += [f"\n{title} ({len(findings)})"] if findings else []
            lines += [f"  {name}: {message}" for name, message in findings]
        if self.sizes:
            heights, widths = np.array(self.sizes).T
            lines.append(
                f"\nsizes: width {widths.min()} to {widths.max()}, height {heights.min()} to {heights.max()}, "
                f"{int((heights > widths).sum())} portraits of {len(heights)}"
            )
            total = sum(count * images for count, images in self.people.items())
            lines.append(f"\npeople: {total}, {total / len(heights):.2f} an image")
            most = max(self.people.values())
            for count in range(max(self.people) + 1):
                bar = "#" * round(40 * self.people[count] / most)
                lines.append(f"  {count:3d} {self.people[count]:7d} {bar}".rstrip())
            lines.append("\nclass                              pixels  of people    images")
            on_people = max(int(self.pixels[1:].sum()), 1)
            for k, name in enumerate(self.labels.names):
                share = f"{100 * self.pixels[k] / on_people:9.2f} %" if k else " " * 11
                lines.append(f"  {k:2d} {name:26s} {self.pixels[k]:12d}{share}{self.images_with[k]:10d}")
        return "\n".join(lines)


SPECK = 16
"""Pixels below which a person is noted."""
SPARSE = 0.02
"""Part of their box below which a person's pixels are noted: two specks in two corners."""


@dataclass
class _Image:
    """The findings on one image."""

    id: str
    size: tuple[int, int]
    people: int
    pixels: np.ndarray
    notes: list[str]


def check_folder(root, split: str = "train", name: str = "", options: dict | None = None) -> Report:
    """Check every file of a split of a data set.

    The data set reports its own findings (`faults`, `notes` and `stray`). For every data set, this function also notes
    pixels of a part without a person, people who may be annotated twice, and people of specks.

    Args:
        root, split, name, options: see :func:`rpcnn.data.datasets.make_split`.

    Raises:
        OSError, ValueError: as `make_split`.
    """
    name = name or detect_dataset(root)
    data_log = logging.getLogger("rpcnn.data")
    level = data_log.level
    data_log.setLevel(logging.ERROR)  # what a data set warns of is in the report
    try:
        return check_dataset(make_split(root, split, name=name, options=options), f"{name} {split} ({root})")
    finally:
        data_log.setLevel(level)


def check_dataset(dataset: PeopleDataset, title: str) -> Report:
    """Check every image of a data set, in several threads."""
    sides = [
        ("pairs", f"{left} and {right} are in no pair: mirror images do not exchange them")
        for left, right in dataset.labels.unpaired_sides()
    ]
    report = Report(title, dataset.labels, faults=list(dataset.faults.items()), notes=[*sides, *dataset.stray()])
    usable = [index for index, name in enumerate(dataset.ids) if name not in dataset.faults]
    report.images = len(usable) + len(dataset.faults)

    def examine(index: int) -> _Image | str:
        try:
            return _examine(dataset, index)
        except DataFault as fault:
            return str(fault)

    with ThreadPoolExecutor(min(8, usable_processors() + 2)) as pool:
        examined = tqdm(pool.map(examine, usable), total=len(usable), desc="checking", unit="image", disable=None)
        for index, found in zip(usable, examined, strict=True):
            if isinstance(found, str):
                report.faults.append((dataset.ids[index], found))
                continue
            report.notes += [(found.id, note) for note in found.notes]
            report.people[found.people] += 1
            report.sizes.append(found.size)
            report.pixels += found.pixels
            report.images_with += found.pixels > 0
    if not report.images:
        report.unusable = "there are no images"
    elif not report.sizes:
        report.unusable = "no image can be used"
    elif dataset.annotated and not any(report.people):
        report.unusable = "no image has a person"
    return report


def _examine(dataset: PeopleDataset, index: int) -> _Image:
    sample = dataset.checked_load(index)
    person_maps, label_map = sample["person_maps"].numpy(), sample["label_map"].numpy()
    count = lambda labels: np.bincount(labels.ravel(), minlength=256)[: dataset.labels.num_classes].astype(np.int64)
    layers = np.zeros(label_map.shape, np.int32)
    pixels = np.zeros(dataset.labels.num_classes, np.int64)
    notes = list(dataset.notes(index))
    for person, box in zip(person_maps, sample["boxes"].tolist(), strict=True):
        layers += person > 0
        pixels[1:] += count(person)[1:]
        size, (x1, y1, x2, y2) = int(np.count_nonzero(person)), box
        if size < SPECK or size < SPARSE * (x2 - x1) * (y2 - y1):
            notes.append(f"a person of {size} pixels in a box of {x2 - x1:g} x {y2 - y1:g} at {x1:g}, {y1:g}: specks?")
    pixels += count(label_map[layers == 0])

    if alone := int(((label_map > 0) & (label_map != IGNORE) & (layers == 0)).sum()):
        notes.append(f"{alone} pixels of a part without a person")
    covered, shared = int((layers > 0).sum()), int(np.maximum(layers - 1, 0).sum())
    if shared > 0.5 * covered:
        notes.append(f"people share {shared} pixels of {covered}: the same person twice?")
    return _Image(sample["id"], label_map.shape, people=len(person_maps), pixels=pixels, notes=notes)
