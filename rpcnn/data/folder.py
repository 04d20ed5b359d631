"""What the readers of official folders share: reading files, indexing a folder, faults that never stop a run."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from rpcnn.labelmaps.png import read_byte_png

from .sample import Sample, Target, Truth

log = logging.getLogger(__name__)

INDEX_VERSION = 1
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


class DataFault(ValueError):
    """A file that cannot be used, with the file and the reason in the message."""


@dataclass
class Entry:
    """One image of the index. Person k has the name `people[k]` in the files and the box `boxes[k]` (xyxy, pixels)."""

    id: str
    height: int
    width: int
    people: list = field(default_factory=list)
    boxes: list = field(default_factory=list)


def read_image(path: Path, pixels: bool = True) -> tuple[np.ndarray | None, tuple[int, int]]:
    """RGB uint8 [H,W,3] and (H, W). With `pixels` False the file is decoded to its end but only the size is returned.

    EXIF orientation is ignored, since the label maps of CIHP and MHP-v2 are aligned with the stored pixels. Raises
    DataFault for a file that is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            size = (image.height, image.width)
            if not pixels:
                # a JPEG at 1/8 size still reads the file to its end, in a fraction of the time
                image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
                image.load()
                return None, size
            return np.array(image.convert("RGB")), size
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataFault(f"{path}: cannot be read as an image ({error})") from error


def read_labels(path: Path, channel: int | None = None) -> np.ndarray:
    """Label map uint8 [H,W]: a single-channel file, or one channel of the RGB of a file that may have several.

    Raises DataFault for a file that is missing, truncated, has more channels than wanted or values above 255.
    """
    try:
        values = read_byte_png(path)
        if values is not None:
            return values
        with Image.open(path) as image:
            if channel is not None and image.mode not in ("L", "P", "1", "I;16", "I"):
                image = image.convert("RGB").getchannel(channel)
            values = np.array(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataFault(f"{path}: cannot be read as a label map ({error})") from error
    if values.ndim != 2:
        raise DataFault(f"{path}: a label map must have one channel, got {values.shape[2]}")
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 255:
            raise DataFault(f"{path}: label values must be in 0..255, got up to {values.max()}")
        values = values.astype(np.uint8)
    return values


def read_id_list(path: Path) -> list[str] | None:
    """Ids listed one a line in a text file, folders and image suffixes taken off; None if there is no such file."""
    if not path.is_file():
        return None
    names = [Path(line.strip()) for line in path.read_text().splitlines() if line.strip()]
    return [name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name for name in names]


def fingerprint(folders: Iterable[Path], files: Iterable[Path] = ()) -> str:
    """A hash of the name, size and modification time of every file in the folders, and of the single files."""
    digest = hashlib.blake2b(digest_size=16)
    for folder in folders:
        lines = []
        if folder.is_dir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file():
                        status = entry.stat()
                        lines.append(f"{entry.name} {status.st_size} {status.st_mtime_ns}")
        digest.update("\n".join([folder.name, *sorted(lines)]).encode())
    for file in files:
        if file.is_file():
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _cache_paths(folder: Path, name: str) -> list[Path]:
    """Where the index may be kept, best first: beside the data, else in the user's cache folder.

    A folder whose mode has no write bit is left alone even by root, to whom the mode is no obstacle.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rpcnn"
    key = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    beside = [folder / f".rpcnn-index-{name}.json"] if folder.stat().st_mode & 0o222 else []
    return [*beside, cache / f"index-{name}-{key}.json"]


def load_index(
    folder: Path, name: str, stems: list[str], mark: str, scan: Callable[[str], Entry], threads: int = 8
) -> tuple[list[Entry], dict[str, str]]:
    """The index of a folder: entries that can be used, and {stem: reason} for those that cannot.

    Taken from the cache if its fingerprint is `mark`, else built by calling `scan` on every stem in several threads
    (`scan` raises DataFault for an unusable image) and cached: beside the data, or under XDG_CACHE_HOME/rpcnn where
    that cannot be written. The file appears at once and whole, so several processes may build it side by side.
    """
    paths = _cache_paths(folder, name)
    for path in paths:
        try:
            stored = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if stored.get("version") == INDEX_VERSION and stored.get("fingerprint") == mark:
            return [Entry(**entry) for entry in stored["entries"]], stored["faults"]

    def attempt(stem: str) -> Entry | str:
        try:
            return scan(stem)
        except DataFault as fault:
            return str(fault)

    with ThreadPoolExecutor(min(threads, (os.cpu_count() or 1) + 2)) as pool:
        results = list(
            tqdm(pool.map(attempt, stems), total=len(stems), desc=f"indexing {folder.name}", unit="image", disable=None)
        )
    entries = [result for result in results if isinstance(result, Entry)]
    faults = {stem: result for stem, result in zip(stems, results, strict=True) if isinstance(result, str)}
    text = json.dumps({"version": INDEX_VERSION, "fingerprint": mark, "faults": faults,
                       "entries": [asdict(entry) for entry in entries]})  # fmt: skip
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}.tmp")
            unfinished.write_text(text)
            unfinished.replace(path)
            break
        except OSError:
            continue
    return entries, faults


class ParsingFolder(torch.utils.data.Dataset):
    """A data set of people and their parts, read from its official folders; subclasses say where and how.

    `labels` is the LabelSet, `entries` the index, `faults` {id: reason} names the images that were left out of it, and
    `sizes` int32 [len,2] holds (height, width) of every image. Items are `Sample`s.

    A file that goes bad after the index was made does not end a run: it is named once in a warning and `dataset[i]`
    gives the next image that can be read. `dataset.load(i)` raises DataFault instead.
    """

    def __init__(self, labels, entries: list[Entry], faults: dict[str, str]):
        self.labels, self.entries, self.faults = labels, entries, faults
        self.sizes = np.array([(entry.height, entry.width) for entry in entries], np.int32).reshape(-1, 2)
        self._warned: set[str] = set()
        if faults:
            some = "; ".join(list(faults.values())[:3])
            log.warning("%s: %d of %d images cannot be used and are skipped: %s%s", labels.name, len(faults),
                        len(faults) + len(entries), some, "; ..." if len(faults) > 3 else "")  # fmt: skip

    def __len__(self) -> int:
        return len(self.entries)

    def load(self, index: int, with_image: bool = True) -> Sample:
        """The sample at `index`, or without its picture; raises DataFault if its files cannot be used any more."""
        raise NotImplementedError

    def truth(self, index: int) -> Truth:
        """What an evaluator compares with, without the picture; raises DataFault as :meth:`load`."""
        return Truth(*(value.numpy() for value in Truth.of(self.load(index, with_image=False))))

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__}: index {index} is outside 0..{len(self) - 1}")
        for step in range(len(self)):
            here = (index + step) % len(self)
            try:
                return self.load(here)
            except DataFault as fault:
                name = self.entries[here].id
                if name not in self._warned:
                    self._warned.add(name)
                    log.warning(
                        "%s: %s has gone bad and is replaced by the next image: %s", self.labels.name, name, fault
                    )
        raise DataFault(f"{self.labels.name}: none of the {len(self)} images can be read")

    def _sample(
        self, entry: Entry, image: np.ndarray | None, person_maps: np.ndarray, label_map: np.ndarray
    ) -> Sample | Target:
        target = Target(
            boxes=torch.tensor(entry.boxes, dtype=torch.float32).reshape(-1, 4),
            person_maps=torch.from_numpy(person_maps),
            label_map=torch.from_numpy(label_map),
            id=entry.id,
        )
        if image is None:
            return target
        return Sample(image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), **target)


def check_values(values: np.ndarray, num_classes: int, path: Path) -> None:
    """Raise DataFault unless every value of a label map is below `num_classes` or 255 (ignored)."""
    if values.max(initial=0) < num_classes:  # 20 times as fast as counting
        return
    counts = np.bincount(values.ravel(), minlength=256)
    wrong = np.flatnonzero(counts[num_classes:255]) + num_classes
    if len(wrong):
        raise DataFault(f"{path}: label values must be below {num_classes} or 255, got {wrong.tolist()}")


def check_size(shape: tuple[int, int], wanted: tuple[int, int], path: Path) -> None:
    """Raise DataFault unless a map has the height and width of its image."""
    if tuple(shape) != tuple(wanted):
        raise DataFault(f"{path}: is {shape[1]} x {shape[0]} pixels, its image {wanted[1]} x {wanted[0]}")
