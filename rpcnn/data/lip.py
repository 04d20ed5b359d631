"""LIP (Look Into Person), read from the folders of the official archives."""

from pathlib import Path

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labels import LIP as LIP_LABELS

from .files import DataFault, images_in, read_id_list, read_part_and_person_map
from .index import fingerprint
from .indexed import IndexedDataset


class LIP(IndexedDataset):
    """LIP, single person.

    Reads TrainVal_images/<split>_images/<id>.jpg and TrainVal_parsing_annotations/<split>_segmentations/<id>.png (the
    part of each pixel) for the ids in <split>_id.txt, in root or in TrainVal_images, or for all images if there is no
    such list. Each archive may be unpacked to a folder of the same name (TrainVal_images/TrainVal_images/…).

    Every image is a crop around one person. The person's map is the label map, and the box encloses the labels.

    Args:
        root: the folder with TrainVal_images and TrainVal_parsing_annotations.
        split: train or val.

    Raises:
        FileNotFoundError: the images are missing.
        DataFault: the maps are missing.
        ValueError: unknown split.
    """

    labels = LIP_LABELS
    layout = "TrainVal_images and TrainVal_parsing_annotations"

    def __init__(self, root, split: str = "train"):
        self.check_split(split)
        root = Path(root)
        self.pictures = _unpacked(root, "TrainVal_images", f"{split}_images")
        self.maps = _unpacked(root, "TrainVal_parsing_annotations", f"{split}_segmentations")
        for folder, error in ((self.pictures, FileNotFoundError), (self.maps, DataFault)):
            if not folder.is_dir():
                raise error(
                    f"LIP: no folder {folder}; root must be the folder that holds TrainVal_images and "
                    "TrainVal_parsing_annotations"
                )
        lists = [root / f"{split}_id.txt", self.pictures.parent / f"{split}_id.txt"]
        listed = read_id_list(lists[0]) or read_id_list(lists[1])
        mark = fingerprint([self.pictures, self.maps], lists)
        super().__init__(
            self.labels, root, name=f"lip-{split}", listed=listed, images=images_in(self.pictures), mark=mark
        )

    @classmethod
    def detect(cls, root: Path) -> bool:
        return (root / "TrainVal_images").is_dir() and (root / "TrainVal_parsing_annotations").is_dir()

    def image_path(self, stem: str) -> Path:
        return self.images.get(stem, self.pictures / f"{stem}.jpg")

    def annotation(self, stem: str, size: tuple[int, int] | None) -> tuple[np.ndarray, NumberedPersonMaps]:
        return read_part_and_person_map(self.maps / f"{stem}.png", None, size=size, num_classes=self.labels.num_classes)

    def stray(self) -> list[tuple[str, str]]:
        return super().stray() + self.without_image(self.maps)


def _unpacked(root: Path, archive: str, folder: str) -> Path:
    """Find the folder of an archive, which may be nested in a second folder of the archive's name."""
    twice = root / archive / archive / folder
    return twice if twice.is_dir() else root / archive / folder
