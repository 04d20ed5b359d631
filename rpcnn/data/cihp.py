"""CIHP (Crowd Instance-level Human Parsing), read from the folders of the official archive."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labels import CIHP as CIHP_LABELS

from .files import images_in, read_id_list, read_part_and_person_map
from .index import fingerprint
from .indexed import IndexedDataset, notes_on_numbers


class CIHP(IndexedDataset):
    """CIHP.

    Reads Images/<id>.jpg, Category_ids/<id>.png (the part of each pixel) and Human_ids/<id>.png (the person of each
    pixel) for the ids in train_id.txt, val_id.txt or test_id.txt, or for all files in Images if there is no such list.

    Ground truth: the label map is Category_ids, in which the annotators decided which person is in front. The map of
    person k is Category_ids where Human_ids == k, so people do not overlap and hidden parts are not labeled. Boxes
    enclose these maps. Images without people are kept. Without its maps, all images of the Testing split have no
    people.

    Args:
        root: the folder with Training, Validation and Testing.
        split: train, val or test.

    Raises:
        FileNotFoundError: the folders are missing.
        ValueError: unknown split.
    """

    labels = CIHP_LABELS
    splits: ClassVar[dict[str, tuple[str, str]]] = {
        "train": ("Training", "train_id.txt"),
        "val": ("Validation", "val_id.txt"),
        "test": ("Testing", "test_id.txt"),
    }
    """The folder of a split, and the list of ids in it."""
    layout = "Validation/Images, or Training/Images without Testing/Category_ids"

    def __init__(self, root, split: str = "train"):
        self.check_split(split)
        name, id_list = self.splits[split]
        self.folder = Path(root) / name
        pictures = self.folder / "Images"
        if not pictures.is_dir():
            folders = " and ".join(folder for folder, _ in list(self.splits.values())[:2])
            raise FileNotFoundError(
                f"{type(self).__name__}: no folder {pictures}; root must be the folder that holds {folders}"
            )
        self.annotated = (self.folder / "Category_ids").is_dir() or split != "test"
        maps = [self.folder / sub for sub in ("Category_ids", "Human_ids")]
        super().__init__(
            self.labels,
            self.folder,
            name="cihp",
            listed=read_id_list(self.folder / id_list),
            images=images_in(pictures),
            mark=fingerprint([pictures, *maps], [self.folder / id_list]),
        )

    @classmethod
    def detect(cls, root: Path) -> bool:
        withheld = not (root / "Testing/Category_ids").is_dir()
        return (root / "Validation/Images").is_dir() or ((root / "Training/Images").is_dir() and withheld)

    def image_path(self, stem: str) -> Path:
        return self.images.get(stem, self.folder / "Images" / f"{stem}.jpg")

    def annotation(self, stem: str, size: tuple[int, int] | None) -> tuple[np.ndarray, NumberedPersonMaps]:
        if not self.annotated:
            empty = np.zeros(size or (0, 0), np.uint8)
            return empty, NumberedPersonMaps(empty, empty, 0)
        parts, people = (self.folder / sub / f"{stem}.png" for sub in ("Category_ids", "Human_ids"))
        return read_part_and_person_map(parts, people, size=size, num_classes=self.labels.num_classes)

    def notes(self, index: int) -> list[str]:
        label_map, people = self.annotation(self.ids[index], tuple(self.sizes[index]))
        return notes_on_numbers(label_map, people.numbers)

    def stray(self) -> list[tuple[str, str]]:
        return super().stray() + self.without_image(self.folder / "Category_ids", self.folder / "Human_ids")
