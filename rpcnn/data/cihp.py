"""CIHP (Crowd Instance-level Human Parsing), read from the folders of the official archive as they are."""

from pathlib import Path

import numpy as np

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labels import CIHP as CIHP_LABELS

from .folder import (
    IMAGE_SUFFIXES,
    DataFault,
    Entry,
    ParsingFolder,
    check_size,
    check_values,
    fingerprint,
    load_index,
    read_id_list,
    read_image,
    read_labels,
)
from .sample import Sample, Truth

SPLITS = {"train": "Training", "val": "Validation", "test": "Testing"}


class CIHP(ParsingFolder):
    """CIHP under `root`, the folder that holds Training, Validation and Testing; `split` is train, val or test.

    Read are Images/<id>.jpg, Category_ids/<id>.png (part of each pixel) and Human_ids/<id>.png (person of each pixel)
    of the ids in train_id.txt, val_id.txt or test_id.txt, or of all files in Images where there is no such list.

    Where the truth comes from: the label map is Category_ids itself, in which the annotators already decided who
    is in front. Person k's map is Category_ids where Human_ids == k: people do not overlap, and what is hidden of a
    person is not labelled. Boxes are drawn around those maps. Images without people are kept, as samples of
    background; so is the Testing split without its maps, all of whose images have no people.

    Raises FileNotFoundError if the folders are not there, ValueError for an unknown split.
    """

    def __init__(self, root, split: str = "train"):
        if split not in SPLITS:
            raise ValueError(f"CIHP: split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.root, self.split = Path(root), split
        self.folder = self.root / SPLITS[split]
        if not (self.folder / "Images").is_dir():
            raise FileNotFoundError(
                f"CIHP: no folder {self.folder / 'Images'}; root must be the folder that holds Training and Validation"
            )
        self.num_classes = CIHP_LABELS.num_classes
        self.annotated = (self.folder / "Category_ids").is_dir() or split != "test"
        id_list = self.folder / f"{split}_id.txt"
        self._images = {
            p.stem: p.name for p in sorted((self.folder / "Images").iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES
        }
        stems = read_id_list(id_list) or list(self._images)
        mark = fingerprint([self.folder / sub for sub in ("Images", "Category_ids", "Human_ids")], [id_list])
        entries, faults = load_index(self.folder, "cihp", stems, mark, self._scan)
        super().__init__(CIHP_LABELS, entries, faults)

    def _paths(self, stem: str) -> tuple[Path, Path, Path]:
        image = self.folder / "Images" / self._images.get(stem, f"{stem}.jpg")
        return image, self.folder / "Category_ids" / f"{stem}.png", self.folder / "Human_ids" / f"{stem}.png"

    def _maps(self, stem: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Category and human map, checked against each other and the image."""
        if not self.annotated:
            return np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        _, category_path, human_path = self._paths(stem)
        category, human = read_labels(category_path), read_labels(human_path)
        check_size(category.shape, size, category_path)
        check_size(human.shape, size, human_path)
        check_values(category, self.num_classes, category_path)
        return category, human

    def _scan(self, stem: str) -> Entry:
        _, size = read_image(self._paths(stem)[0], pixels=False)
        category, human = self._maps(stem, size)
        entry = Entry(stem, *size)
        boxes = person_boxes(NumberedPersonMaps(category, human, int(human.max(initial=0))))
        for k, box in enumerate(boxes.astype(int).tolist(), 1):
            if any(box):  # a person without any part is no person
                entry.people.append(k)
                entry.boxes.append(box)
        return entry

    def load(self, index: int, with_image: bool = True) -> Sample:
        entry = self.entries[index]
        image_path = self._paths(entry.id)[0]
        image, size = read_image(image_path) if with_image else (None, (entry.height, entry.width))
        check_size(size, (entry.height, entry.width), image_path)
        truth = self.truth(index)
        person_maps = np.asarray(truth.person_maps)
        for k, person in zip(entry.people, person_maps, strict=True):
            if not person.any():
                raise self._gone(entry, k)
        return self._sample(entry, image, person_maps, truth.label_map)

    def truth(self, index: int) -> Truth:
        entry = self.entries[index]
        category, human = self._maps(entry.id, (entry.height, entry.width))
        count = len(entry.people)
        most = human.max(initial=0)
        if most < max(entry.people, default=0):
            raise self._gone(entry, entry.people[-1])
        if entry.people != list(range(1, most + 1)):
            renumber = np.zeros(256, np.uint8)
            renumber[entry.people] = np.arange(1, count + 1)
            human = renumber[human]
        return Truth(category, NumberedPersonMaps(category, human, count), np.array(entry.boxes, float).reshape(-1, 4))

    def _gone(self, entry: Entry, person: int) -> DataFault:
        return DataFault(f"{self._paths(entry.id)[2]}: person {person} of the index is not there any more")
