"""What the data sets that are read from folders share: an index, and faults that never stop a run."""

import logging
from abc import abstractmethod
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labels import LabelSet

from .dataset import PeopleDataset
from .files import DataFault, all_faults, check_size, read_image
from .index import Entry, load_index
from .sample import Sample, Target, Truth

log = logging.getLogger(__name__)

PersonMaps = np.ndarray | NumberedPersonMaps


class IndexedDataset(PeopleDataset):
    """A data set with an index of its folder, which knows images that cannot be used before a run begins.

    A subclass says where the picture of an id is and how its annotation is read; it calls `__init__` last, when both
    work. `entries` is the index, `images` the pictures that were found by their ids.

    Args:
        labels: also found as `labels`.
        folder: the index is kept there, or in the user's cache folder where it cannot be written.
        name: of the index among others in the same folder.
        listed: the ids to use, in order; None takes all images.
        images: path of every picture by its id.
        mark: a fingerprint of all files (:func:`rpcnn.data.index.fingerprint`): the index is made anew for another.
    """

    def __init__(
        self, labels: LabelSet, folder: Path, name: str, listed: list[str] | None, images: dict[str, Path], mark: str
    ):
        self.labels, self.images = labels, images
        self.repeated = {stem: times for stem, times in Counter(listed or ()).items() if times > 1}
        stems = list(dict.fromkeys(listed or images))
        self.entries, self.faults = load_index(folder, name, stems, mark, self._scan)
        self.ids = [entry.id for entry in self.entries]
        self.sizes = np.array([(entry.height, entry.width) for entry in self.entries], np.int32).reshape(-1, 2)
        if self.faults:
            some = "; ".join(list(self.faults.values())[:3])
            log.warning("%s: %d of %d images cannot be used and are skipped: %s%s", labels.name, len(self.faults),
                        len(stems), some, "; ..." if len(self.faults) > 3 else "")  # fmt: skip

    @abstractmethod
    def image_path(self, stem: str) -> Path:
        """Where the picture of an id is, or should be."""

    @abstractmethod
    def annotation(self, stem: str, size: tuple[int, int] | None) -> tuple[np.ndarray, PersonMaps]:
        """Label map uint8 [H, W] and person maps uint8 [n, H, W] or numbered, of everybody the files have.

        Args:
            size: (H, W) that they must have; None, for a picture that cannot be read, does not check it.

        Raises:
            DataFault: names everything that is wrong with the files.
        """

    def __len__(self) -> int:
        return len(self.entries)

    def _scan(self, stem: str) -> Entry:
        with all_faults() as attempt:
            _, size = attempt(read_image, self.image_path(stem), False) or (None, None)
            annotation = attempt(self.annotation, stem, size)
        entry = Entry(stem, *size)
        for k, box in enumerate(person_boxes(annotation[1]).astype(int).tolist(), 1):
            if any(box):  # a person without any part is no person
                entry.people.append(k)
                entry.boxes.append(box)
        return entry

    def load(self, index: int, with_image: bool = True) -> Sample | Target:
        """The sample at `index`, or without its picture. Raises DataFault if its files cannot be used any more."""
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
        used = {*self.ids, *self.faults}
        unlisted = [stem for stem in self.images if stem not in used]
        if unlisted:
            stray.append((unlisted[0], f"and {len(unlisted) - 1} more images are in the folder but not in the list"))
        return stray

    def without_image(self, *folders: Path) -> list[tuple[str, str]]:
        """What :meth:`stray` says about the maps in some folders whose stems are no image's."""
        maps = [path for folder in folders for path in sorted(folder.glob("*.png"))]
        return [(path.stem, f"{path}: belongs to no image") for path in maps if path.stem not in self.images]


def _chosen(person_maps: PersonMaps, people: list[int]) -> PersonMaps:
    """The maps of the people with these numbers, which count from 1."""
    if not isinstance(person_maps, NumberedPersonMaps):
        return person_maps[np.array(people, int) - 1]
    renumber = np.zeros(person_maps.count + 1, np.uint8)
    renumber[people] = np.arange(1, len(people) + 1)
    return NumberedPersonMaps(person_maps.label_map, renumber[person_maps.numbers], len(people))


def notes_on_numbers(label_map: np.ndarray, numbers: np.ndarray) -> list[str]:
    """What is suspicious about a person map: people without any part, and pixels of a person without a part."""
    everybody = np.bincount(numbers.ravel())
    with_parts = np.bincount(numbers[label_map > 0], minlength=len(everybody))
    notes = [
        f"person {k} has {everybody[k]} pixels and no part: left out"
        for k in np.flatnonzero(everybody[1:]) + 1
        if not with_parts[k]
    ]
    bare = int(((numbers > 0) & (label_map == 0) & (with_parts[numbers] > 0)).sum())
    return notes + ([f"{bare} pixels of a person without a part"] if bare else [])
