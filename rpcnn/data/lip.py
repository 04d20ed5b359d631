"""LIP (Look Into Person), read from the folders of the official archives as they are."""

from pathlib import Path

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labels import LIP as LIP_LABELS

from .files import images_in, read_id_list, read_part_and_person_map
from .index import fingerprint
from .indexed import IndexedDataset


class LIP(IndexedDataset):
    """LIP, single person, under `root`, the folder that holds TrainVal_images; `split` is train or val.

    Read are TrainVal_images/<split>_images/<id>.jpg and TrainVal_parsing_annotations/<split>_segmentations/<id>.png
    (part of each pixel) of the ids in <split>_id.txt, in root or in TrainVal_images, or of all pictures where there is
    no such list. Either archive may have been unpacked into a folder of its own name
    (TrainVal_images/TrainVal_images/…).

    Every picture is cut out around one person. The person's map is the label map; the box is drawn around the labels.

    Raises FileNotFoundError if the folders are not there, ValueError for an unknown split.
    """

    labels = LIP_LABELS
    layout = "TrainVal_images and TrainVal_parsing_annotations"

    def __init__(self, root, split: str = "train"):
        self.check_split(split)
        root = Path(root)
        self.pictures = _unpacked(root, "TrainVal_images", f"{split}_images")
        self.maps = _unpacked(root, "TrainVal_parsing_annotations", f"{split}_segmentations")
        for folder in (self.pictures, self.maps):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"LIP: no folder {folder}; root must be the folder that holds TrainVal_images and "
                    "TrainVal_parsing_annotations"
                )
        lists = [root / f"{split}_id.txt", self.pictures.parent / f"{split}_id.txt"]
        listed = read_id_list(lists[0]) or read_id_list(lists[1])
        mark = fingerprint([self.pictures, self.maps], lists)
        super().__init__(self.labels, root, f"lip-{split}", listed, images_in(self.pictures), mark)

    @classmethod
    def detect(cls, root: Path) -> bool:
        return (root / "TrainVal_images").is_dir() and (root / "TrainVal_parsing_annotations").is_dir()

    def image_path(self, stem: str) -> Path:
        return self.images.get(stem, self.pictures / f"{stem}.jpg")

    def annotation(self, stem: str, size: tuple[int, int] | None) -> tuple[np.ndarray, NumberedPersonMaps]:
        return read_part_and_person_map(self.maps / f"{stem}.png", None, size, self.labels.num_classes)

    def stray(self) -> list[tuple[str, str]]:
        return super().stray() + self.without_image(self.maps)


def _unpacked(root: Path, archive: str, folder: str) -> Path:
    """The folder of an archive, which may lie in a folder of the archive's name once more."""
    twice = root / archive / archive / folder
    return twice if twice.is_dir() else root / archive / folder
