"""MHP-v2 (Multi-Human Parsing v2.0), read from the folders of the official archive."""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from rpcnn.labels import MHP_V2
from rpcnn.pictures import files_in

from .files import DataFault, all_faults, check_size, check_values, images_in, read_id_list, read_labels
from .index import fingerprint
from .indexed import IndexedDataset

PERSON_FILE = re.compile(r"(.+)_(\d+)_(\d+)\.png$")


class MHPv2(IndexedDataset):
    """MHP-v2.

    Reads <split>/images/<id>.jpg and, for every person, <split>/parsing_annos/<id>_<NN>_<ii>.png (person ii of NN) for
    the ids in list/*.txt, or for all files in images if there is no such list. The annotation files have three similar
    channels, of which only the first (red) holds the labels.

    Ground truth: every person has a separate map, and the maps overlap where annotators labeled the same pixels twice.
    The archive has no label map of the whole image. It is made from the person maps in the order of their numbers ii,
    so that the person with the HIGHEST number is in front, as in the usual conversions of MHP-v2 to CIHP's layout.
    Boxes, for AP^bbox and for training, enclose the person maps, overlapped parts included. An image without people has
    a single map <id>_01_01.png of zeros, and is kept. An image without any map is treated as incomplete and left out.
    Without annotations, all images of the test splits have no people.

    Args:
        root: the folder with train, val and list.
        split: a key of `splits`.

    Raises:
        FileNotFoundError: the folders are missing.
        ValueError: unknown split.
    """

    labels = MHP_V2
    splits: ClassVar[dict[str, tuple[str, str]]] = {
        "train": ("train", "train.txt"),
        "val": ("val", "val.txt"),
        "test": ("test", "test_all.txt"),
        "test_top10": ("test", "test_inter_top10.txt"),
        "test_top20": ("test", "test_inter_top20.txt"),
    }
    """The folder of a split, and the list of ids in the folder list."""
    layout = "train/images and train/parsing_annos, or the same in val"

    def __init__(self, root, split: str = "train"):
        self.check_split(split)
        name, id_list = self.splits[split]
        self.folder, id_list = Path(root) / name, Path(root) / "list" / id_list
        pictures, self.maps = self.folder / "images", self.folder / "parsing_annos"
        if not pictures.is_dir():
            raise FileNotFoundError(
                f"MHPv2: no folder {pictures}; root must be the folder that holds train, val and list"
            )
        self.annotated = self.maps.is_dir() or name != "test"
        self.people: dict[str, list[tuple[int, int, str]]] = {}
        """Id to (person number, number of people, file name) of each person, ascending."""
        self.unnamed: list[Path] = []
        for path in files_in(self.maps, "*.png") if self.maps.is_dir() else ():
            if match := PERSON_FILE.match(path.name):
                self.people.setdefault(match[1], []).append((int(match[3]), int(match[2]), path.name))
            else:
                self.unnamed.append(path)
        for files in self.people.values():
            files.sort()
        super().__init__(
            self.labels,
            self.folder,
            name=f"mhpv2-{split}",
            listed=read_id_list(id_list),
            images=images_in(pictures),
            mark=fingerprint([pictures, self.maps], [id_list]),
        )

    @classmethod
    def detect(cls, root: Path) -> bool:
        return any((root / split / "images").is_dir() and (root / split / "parsing_annos").is_dir()
                   for split in ("train", "val"))  # fmt: skip

    def image_path(self, stem: str) -> Path:
        return self.images.get(stem, self.folder / "images" / f"{stem}.jpg")

    def annotation(self, stem: str, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        files = self.people.get(stem, [])
        if self.annotated and not files:
            raise DataFault(f"{self.image_path(stem)}: has no annotation {stem}_NN_ii.png in parsing_annos")
        with all_faults() as attempt:
            attempt(self._check_numbers, stem, files)
            maps = [attempt(self._map, name, size) for _, _, name in files]
        size = size or (maps[0].shape if maps else (0, 0))
        person_maps, label_map = np.zeros((len(maps), *size), np.uint8), np.zeros(size, np.uint8)
        for person, own, (_, _, name) in zip(person_maps, maps, files, strict=True):  # the last one is in front
            check_size(own.shape, size, self.maps / name)
            person[:] = own
            np.copyto(label_map, own, where=own > 0)
        return label_map, person_maps

    def _check_numbers(self, stem: str, files: list[tuple[int, int, str]]) -> None:
        if [(number, total) for number, total, _ in files] != [(k, len(files)) for k in range(1, len(files) + 1)]:
            raise DataFault(
                f"{self.maps}: {stem}_*.png must be people 1 to N of N, got {[name for _, _, name in files]}"
            )

    def _map(self, name: str, size: tuple[int, int] | None) -> np.ndarray:
        path = self.maps / name
        labels = read_labels(path, channel=0)
        with all_faults() as attempt:
            if size:
                attempt(check_size, labels.shape, size, path)
            attempt(check_values, labels, self.labels.num_classes, path)
        return labels

    def notes(self, index: int) -> list[str]:
        entry = self.entries[index]
        files = self.people.get(entry.id, [])
        if len(files) < 2:
            return []
        return [f"{name} has no part: left out" for number, _, name in files if number not in entry.people]

    def stray(self) -> list[tuple[str, str]]:
        unnamed = [(path.stem, f"{path}: is not named <image>_<NN>_<ii>.png") for path in self.unnamed]
        orphans = [
            (stem, f"{self.maps / files[0][2]}: belongs to no image")
            for stem, files in self.people.items()
            if stem not in self.images
        ]
        return super().stray() + unnamed + orphans
