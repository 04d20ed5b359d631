"""The index of a folder: the ids, sizes, people and boxes of its images, found by reading all files once and cached."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from rpcnn.runtime.processors import usable_processors

from .files import DataFault

INDEX_VERSION = 2
"""Increased when the meaning of entries or faults changes, so that older indexes are made again."""


@dataclass
class Entry:
    """One image of the index. Person k has the number `people[k]` in the files, from 1, and the box `boxes[k]`."""

    id: str
    height: int
    width: int
    people: list[int] = field(default_factory=list)
    boxes: list[list[int]] = field(default_factory=list)
    """x1, y1, x2, y2 in pixels."""

    def is_sound(self) -> bool:
        """Whether all fields have the types and ranges of an entry that :func:`load_index` made."""
        integer = lambda value, low: type(value) is int and low <= value < 2**31
        return (
            isinstance(self.id, str)
            and integer(self.height, 1)
            and integer(self.width, 1)
            and isinstance(self.people, list)
            and all(integer(person, 1) for person in self.people)
            and isinstance(self.boxes, list)
            and len(self.boxes) == len(self.people)
            and all(len(box) == 4 and all(integer(corner, 0) for corner in box) for box in self.boxes)
        )


def fingerprint(folders: Iterable[Path], files: Iterable[Path] = ()) -> str:
    """Hash the name, size and modification time of every file in the folders, and of the single files."""
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
    """List the possible paths of the index, best first: in the data folder, then in the user's cache folder, if any.

    A folder without a write bit is never written to, not even by root, who could.
    """
    key = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    beside = [folder / f".rpcnn-index-{name}.json"] if folder.stat().st_mode & 0o222 else []
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rpcnn"
    except RuntimeError:  # a user without a name, as in a container, has no home
        return beside
    return [*beside, cache / f"index-{name}-{key}.json"]


def _stored(path: Path, stems: list[str], mark: str) -> tuple[list[Entry], dict[str, str]] | None:
    """Read a cached index, if it is of these files and images. It may come with the data, from anybody."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != INDEX_VERSION or stored["fingerprint"] != mark:
            return None
        entries, faults = [Entry(**entry) for entry in stored["entries"]], dict(stored["faults"])
        sound = all(entry.is_sound() for entry in entries) and all(isinstance(why, str) for why in faults.values())
        if sound and sorted([*(entry.id for entry in entries), *faults]) == sorted(stems):
            return entries, faults
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return None


def load_index(
    folder: Path, name: str, stems: list[str], mark: str, scan: Callable[[str], Entry], threads: int = 8
) -> tuple[list[Entry], dict[str, str]]:
    """Load the index of a folder from its cache, or build and cache it.

    The cache is a file in the data folder, or under XDG_CACHE_HOME/rpcnn if that cannot be written. It is replaced
    atomically, so several processes may build it at the same time. It is not written where the system refused a file.

    Args:
        folder: the data folder.
        name: distinguishes several indexes of one folder.
        stems: the images to index.
        mark: the :func:`fingerprint` of the files. A cache with another one is not used.
        scan: makes the entry of a stem, in several threads. Raises DataFault for an image that cannot be used.
        threads: the largest number of threads.

    Returns:
        The entries of images that can be used, and {stem: reason} for the others.
    """
    paths = _cache_paths(folder, name)
    for path in paths:
        if found := _stored(path, stems, mark):
            return found

    passing = []

    def attempt(stem: str) -> Entry | str:
        try:
            return scan(stem)
        except DataFault as fault:
            if fault.passing:
                passing.append(stem)
            return str(fault)

    with ThreadPoolExecutor(min(threads, usable_processors() + 2)) as pool:
        results = list(
            tqdm(pool.map(attempt, stems), total=len(stems), desc=f"indexing {folder.name}", unit="image", disable=None)
        )
    entries = [result for result in results if isinstance(result, Entry)]
    faults = {stem: result for stem, result in zip(stems, results, strict=True) if isinstance(result, str)}
    if passing:  # chmod changes no fingerprint
        return entries, faults
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
