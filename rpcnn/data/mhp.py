"""MHP-v2 (Multi-Human Parsing v2.0), read from the folders of the official archive as they are."""

import re
from pathlib import Path

import numpy as np

from rpcnn.labelmaps.boxes import enclosing_box
from rpcnn.labels import MHP_V2

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
from .sample import Sample

LISTS = {
    "train": ("train", "train.txt"),
    "val": ("val", "val.txt"),
    "test": ("test", "test_all.txt"),
    "test_top10": ("test", "test_inter_top10.txt"),
    "test_top20": ("test", "test_inter_top20.txt"),
}
PERSON_FILE = re.compile(r"(.+)_(\d+)_(\d+)\.png$")


class MHPv2(ParsingFolder):
    """MHP-v2 under `root`, the folder that holds train, val and list; `split` is a key of LISTS.

    Read are <split>/images/<id>.jpg and, for every person, <split>/parsing_annos/<id>_<NN>_<ii>.png (person ii of NN),
    of the ids in list/*.txt, or of all files in images where there is no such list. The annotation files have three
    equal-looking channels, of which only the first (red) holds the labels.

    Where the truth comes from: every person has a map of their own, and the maps overlap where annotators labelled
    the same pixels twice. There is no joint map in the archive. The label map is made by laying the people's maps
    over each other in the order of their numbers ii, so that the person with the HIGHEST number is in front: the order
    in which the usual conversions of MHP-v2 to CIHP's layout overwrite pixels. Boxes, for AP^bbox as for training,
    are drawn around the people's maps, overlapped parts included. An image is said to have nobody by a single map
    <id>_01_01.png of zeros, and is kept as a sample of background; one without any map is taken for an incomplete
    copy and left out. The test splits without annotation are read as images without people.

    Raises FileNotFoundError if the folders are not there, ValueError for an unknown split.
    """

    def __init__(self, root, split: str = "train"):
        if split not in LISTS:
            raise ValueError(f"MHPv2: split must be one of {', '.join(LISTS)}, got {split!r}")
        self.root, self.split = Path(root), split
        name, id_list = LISTS[split]
        self.folder, id_list = self.root / name, self.root / "list" / id_list
        images, annotations = self.folder / "images", self.folder / "parsing_annos"
        if not images.is_dir():
            raise FileNotFoundError(
                f"MHPv2: no folder {images}; root must be the folder that holds train, val and list"
            )
        self.annotated = annotations.is_dir() or name != "test"
        self._images = {p.stem: p.name for p in sorted(images.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES}
        self._people: dict[str, list[tuple[int, int, str]]] = {}
        if annotations.is_dir():
            for path in annotations.iterdir():
                if match := PERSON_FILE.match(path.name):
                    self._people.setdefault(match[1], []).append((int(match[3]), int(match[2]), path.name))
        stems = read_id_list(id_list) or list(self._images)
        mark = fingerprint([images, annotations], [id_list])
        entries, faults = load_index(self.folder, f"mhpv2-{split}", stems, mark, self._scan)
        del self._people  # the index has the names: loader processes need not carry them twice
        super().__init__(MHP_V2, entries, faults)

    def _image_path(self, stem: str) -> Path:
        return self.folder / "images" / self._images.get(stem, f"{stem}.jpg")

    def _map(self, name: str, size: tuple[int, int]) -> np.ndarray:
        path = self.folder / "parsing_annos" / name
        labels = read_labels(path, channel=0)
        check_size(labels.shape, size, path)
        check_values(labels, MHP_V2.num_classes, path)
        return labels

    def _scan(self, stem: str) -> Entry:
        _, size = read_image(self._image_path(stem), pixels=False)
        entry = Entry(stem, *size)
        files = sorted(self._people.get(stem, []))
        if self.annotated and not files:
            raise DataFault(f"{self._image_path(stem)}: has no annotation {stem}_NN_ii.png in parsing_annos")
        if {number for number, _, _ in files} != set(range(1, len(files) + 1)) or any(
            total != len(files) for _, total, _ in files
        ):
            raise DataFault(
                f"{self.folder / 'parsing_annos'}: {stem}_*.png must be people 1 to N of N, "
                f"got {[name for _, _, name in files]}"
            )
        for _, _, name in files:
            box = [int(side) for side in enclosing_box(self._map(name, size))]
            if any(box):  # a person without any part is no person
                entry.people.append(name)
                entry.boxes.append(box)
        return entry

    def load(self, index: int, with_image: bool = True) -> Sample:
        entry = self.entries[index]
        image_path = self._image_path(entry.id)
        image, size = read_image(image_path) if with_image else (None, (entry.height, entry.width))
        check_size(size, (entry.height, entry.width), image_path)
        person_maps = np.zeros((len(entry.people), *size), np.uint8)
        label_map = np.zeros(size, np.uint8)
        for person, name in zip(person_maps, entry.people, strict=True):  # rising numbers: the last one is in front
            person[:] = self._map(name, size)
            np.copyto(label_map, person, where=person > 0)
        return self._sample(entry, image, person_maps, label_map)
