"""The index of a folder: what its images are, found once by reading everything and kept in a file."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from .files import DataFault

INDEX_VERSION = 2
"""Raised when entries or faults mean something else, so that indexes made before are made again."""


@dataclass
class Entry:
    """One image of the index. Person k has the number `people[k]` in the files, from 1, and the box `boxes[k]`."""

    id: str
    height: int
    width: int
    people: list[int] = field(default_factory=list)
    boxes: list[list[int]] = field(default_factory=list)
    """x1, y1, x2, y2 in pixels."""


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
