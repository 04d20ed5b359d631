"""A data set of your own images and classes without any code: a folder with a labels.toml."""

from pathlib import Path

import numpy as np

from rpcnn.labels import LabelSet

from .coco import CocoFile
from .files import DataFault, images_in, read_part_and_person_map
from .index import fingerprint
from .indexed import IndexedDataset, PersonMaps, notes_on_numbers
from .labels_file import read_labels_file


class Folder(IndexedDataset):
    """A folder with a labels.toml that defines the classes.

    ::

        root/labels.toml                   the classes: see rpcnn.data.labels_file.read_labels_file
        root/train/images/<stem>.jpg       the images (.jpg, .jpeg or .png)
        root/train/parts/<stem>.png        the class of each pixel: 0 background, 1 the second of names, …
        root/train/people/<stem>.png       the person number of each pixel: 0 no person; 1, 2, … in any order
        root/val/…                         the same for evaluation

    Maps are gray or palette PNGs with a value from 0 to 255 per pixel, and have the size of their image as it is
    stored: EXIF orientation is ignored. Without a folder people/, all labeled pixels of an image belong to one person;
    with it, every image must have a map there. A person's map is the part map at the pixels with the person's number,
    so people do not overlap.

    Instead of parts/ and people/, a split can have a file root/train.json in COCO's style, in which people may
    overlap: see :class:`rpcnn.data.coco.CocoFile`.

    Args:
        root: the folder.
        split: train, val or test.

    Raises:
        FileNotFoundError: the images or labels.toml are missing.
        DataFault: the annotations are missing, an invalid JSON, or both a JSON and parts/.
        ValueError: unknown split, or invalid labels.toml.
    """

    splits = ("train", "val", "test")
    layout = "labels.toml"

    def __init__(self, root, split: str = "train"):
        self.check_split(split)
        root = Path(root)
        labels, self.ignore = read_labels_file(root / "labels.toml")
        self.labels, self.folder, json = labels, root / split, root / f"{split}.json"
        pictures, self.parts, people = (self.folder / sub for sub in ("images", "parts", "people"))
        if not pictures.is_dir():
            raise FileNotFoundError(f"Folder: no folder {pictures}; root must be the folder that holds {split}/images")
        if json.is_file() == self.parts.is_dir():
            problem = "must not both be there" if json.is_file() else "are both missing"
            raise DataFault(f"Folder: {self.parts} and {json} {problem}")
        images = images_in(pictures)
        self.coco = CocoFile(json, labels, self.ignore) if json.is_file() else None
        self.people = people if people.is_dir() else None
        mark = fingerprint([pictures, self.parts, people], [root / "labels.toml", json])
        listed = list(self.coco.images) if self.coco else None
        super().__init__(labels, self.folder, name="folder", listed=listed, images=images, mark=mark)

    @classmethod
    def label_set(cls, root: Path, **options) -> LabelSet:
        return read_labels_file(Path(root) / "labels.toml")[0]

    @classmethod
    def detect(cls, root: Path) -> bool:
        return (root / "labels.toml").is_file()

    def image_path(self, stem: str) -> Path:
        missing = self.coco.images[stem]["file_name"] if self.coco else f"{stem}.jpg"
        return self.images.get(stem, self.folder / "images" / missing)

    def annotation(self, stem: str, size: tuple[int, int] | None) -> tuple[np.ndarray, PersonMaps]:
        if self.coco:
            return self.coco.read(stem, size)
        people = self.people and self.people / f"{stem}.png"
        return read_part_and_person_map(
            self.parts / f"{stem}.png", people, size=size, num_classes=self.labels.num_classes, ignore=self.ignore
        )

    def notes(self, index: int) -> list[str]:
        if self.coco:
            return self.coco.notes(self.ids[index])
        label_map, people = self.annotation(self.ids[index], tuple(self.sizes[index]))
        return notes_on_numbers(label_map, people.numbers)

    def stray(self) -> list[tuple[str, str]]:
        people = self.folder / "people"
        alone = [] if self.people or self.coco else [("people", f"{people} is missing: every picture is one person")]
        return alone + super().stray() + self.without_image(self.parts, people)
