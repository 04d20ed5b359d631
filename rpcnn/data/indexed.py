"""The base class of data sets read from folders: it has an index, and invalid images never stop a run."""

import logging
from abc import abstractmethod
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labels import LabelSet
from rpcnn.pictures import files_in

from .dataset import PeopleDataset
from .files import DataFault, all_faults, check_size, image_files, read_image
from .index import Entry, load_index
from .sample import Sample, Target, Truth

log = logging.getLogger(__name__)

PersonMaps = np.ndarray | NumberedPersonMaps


class IndexedDataset(PeopleDataset):
    """A data set with an index of its folder, so that invalid images are known before a run begins.

    A subclass defines :meth:`image_path` and :meth:`annotation`, and calls `__init__` after it has set what they need.
    `entries` is the index, and `images` the path of each image by its id.

    Args:
        labels: the label set.
        folder: the folder of the index, if it can be written; else the index is in the user's cache folder.
        name: the name of the index, if the folder has several.
        listed: the ids to use, in order; None uses all images.
        images: path of every image by its id.
        mark: the :func:`rpcnn.data.index.fingerprint` of all files; the index is built again when it changes.
    """

    def __init__(
        self, labels: LabelSet, folder: Path, name: str, listed: list[str] | None, images: dict[str, Path], mark: str
    ):
        self.labels, self.images = labels, images
        self.repeated = {stem: times for stem, times in Counter(listed or ()).items() if times > 1}
        stems = list(dict.fromkeys(listed or images))
        self.entries, self.faults = load_index(folder, name, stems=stems, mark=mark, scan=self._scan)
        self.ids = [entry.id for entry in self.entries]
        self.sizes = np.array([(entry.height, entry.width) for entry in self.entries], np.int32).reshape(-1, 2)
        if self.faults:
            some = "; ".join(list(self.faults.values())[:3])
            log.warning("%s: %d of %d images cannot be used and are skipped: %s%s", labels.name, len(self.faults),
                        len(stems), some, "; ..." if len(self.faults) > 3 else "")  # fmt: skip
        if self.annotated and self.entries and not any(entry.people for entry in self.entries):
            log.warning("%s: no image in %s has a person", labels.name, folder)

    @abstractmethod
    def image_path(self, stem: str) -> Path:
        """Return the path of an image, whether it exists or not."""

    @abstractmethod
    def annotation(self, stem: str, size: tuple[int, int] | None) -> tuple[np.ndarray, PersonMaps]:
        """Read the annotation of an image.

        Args:
            stem: the id.
            size: (H, W) that the maps must have; None, for an image that cannot be read, does not check it.

        Returns:
            The label map uint8 [H, W], and the maps of all people in the files, uint8 [n, H, W] or
            :class:`NumberedPersonMaps`.

        Raises:
            DataFault: a file cannot be used. The message has all faults.
        """

    def __len__(self) -> int:
        return len(self.entries)

    def _scan(self, stem: str) -> Entry:
        with all_faults() as attempt:
            _, size = attempt(read_image, self.image_path(stem), False) or (None, None)
            annotation = attempt(self.annotation, stem, size)
        entry = Entry(stem, *size)
        for k, box in enumerate(person_boxes(annotation[1]).astype(int).tolist(), 1):
            if any(box):  # people without any labeled part are left out
                entry.people.append(k)
                entry.boxes.append(box)
        return entry

    def load(self, index: int, with_image: bool = True) -> Sample | Target:
        """Load the sample at `index`, optionally without its image. Raises DataFault if a file is no longer valid."""
        entry = self.entries[index]
        size, image = (entry.height, entry.width), None
        if with_image:
            path = self.image_path(entry.id)
            image, found = read_image(path)
            check_size(found, size, path)
        truth = self.truth(index)
        person_maps = np.asarray(truth.person_maps)
        for k, person in zip(entry.people, person_maps, strict=True):
            if not person.any():
                raise self._gone(entry, k)
        target = Target(
            boxes=torch.tensor(entry.boxes, dtype=torch.float32).reshape(-1, 4),
            person_maps=torch.from_numpy(person_maps),
            label_map=torch.from_numpy(truth.label_map),
            id=entry.id,
        )
        if image is None:
            return target
        return Sample(image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), **target)

    def truth(self, index: int) -> Truth:
        entry = self.entries[index]
        label_map, person_maps = self.annotation(entry.id, (entry.height, entry.width))
        if len(person_maps) < max(entry.people, default=0):
            raise self._gone(entry, entry.people[-1])
        if entry.people != list(range(1, len(person_maps) + 1)):
            person_maps = _chosen(person_maps, entry.people)
        return Truth(label_map, person_maps, np.array(entry.boxes, float).reshape(-1, 4))

    def _gone(self, entry: Entry, person: int) -> DataFault:
        return DataFault(f"{self.image_path(entry.id)}: person {person} of the index is not there any more")

    def stray(self) -> list[tuple[str, str]]:
        stray = [(stem, f"listed {times} times") for stem, times in self.repeated.items()]
        folders = sorted({path.parent for path in self.images.values()})
        files = [path for folder in folders for path in image_files(folder)]
        twins = [path for path in files if self.images.get(path.stem, path) != path]
        stray += [(path.stem, f"{path} is not used: {self.images[path.stem].name} has its name") for path in twins]
        used = {*self.ids, *self.faults}
        unlisted = [stem for stem in self.images if stem not in used]
        if unlisted:
            stray.append((unlisted[0], f"and {len(unlisted) - 1} more images are in the folder but not in the list"))
        return stray

    def without_image(self, *folders: Path) -> list[tuple[str, str]]:
        """List (id, message) for :meth:`stray` for the maps in some folders that belong to no image."""
        maps = [path for folder in folders for path in files_in(folder, "*.png")]
        return [(path.stem, f"{path}: belongs to no image") for path in maps if path.stem not in self.images]


def _chosen(person_maps: PersonMaps, people: list[int]) -> PersonMaps:
    """Select the maps of the people with these numbers, counted from 1."""
    if not isinstance(person_maps, NumberedPersonMaps):
        return person_maps[np.array(people, int) - 1]
    renumber = np.zeros(person_maps.count + 1, np.uint8)
    renumber[people] = np.arange(1, len(people) + 1)
    return NumberedPersonMaps(person_maps.label_map, renumber[person_maps.numbers], len(people))


def notes_on_numbers(label_map: np.ndarray, numbers: np.ndarray) -> list[str]:
    """List what is suspicious about a map of person numbers: people without parts, and their pixels without a part."""
    pixels = np.bincount(numbers.ravel())
    with_parts = np.bincount(numbers[label_map > 0], minlength=len(pixels))
    notes = [
        f"person {k} has {pixels[k]} pixels and no part: left out"
        for k in np.flatnonzero(pixels[1:]) + 1
        if not with_parts[k]
    ]
    bare = int(((numbers > 0) & (label_map == 0) & (with_parts[numbers] > 0)).sum())
    return notes + ([f"{bare} pixels of a person without a part"] if bare else [])
