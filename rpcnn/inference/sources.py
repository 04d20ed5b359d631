"""The pictures, shards of pictures and videos that `rpcnn predict` is asked for, and where their results go."""

import glob
import io
import itertools
import os
import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rpcnn.pictures import SUFFIXES, files_in, is_litter, load_picture

from . import coco_file, video
from .saving import DEFAULT, OF_VIDEO, is_record, is_result, result_names, stem_of_person_file
from .shards import Member, ShardReader, expand_braces, is_shard, list_pictures, stem_of

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Source:
    """A picture, video or camera, and where its results go."""

    path: pathlib.Path
    place: pathlib.PurePath
    """Below the output folder: the folders below its source, and its stem."""
    data: bytes | None = None
    """The bytes of a picture that is no file."""
    camera: int | None = None
    """The number of a camera."""
    member: Member | None = None
    """Where a picture lies that is inside a shard."""

    @property
    def is_video(self) -> bool:
        """Whether it is a camera or the name of a video."""
        return self.camera is not None or self.path.suffix.lower() in video.SUFFIXES

    def kinds(self, asked: Sequence[str]) -> Sequence[str]:
        """What to save of it: what was asked for, if anything."""
        return asked or (("overlay",) if self.is_video else DEFAULT)

    def load(self, max_pixels: int, shards: ShardReader) -> np.ndarray:
        """The pixels, as from :func:`rpcnn.pictures.load_picture`."""
        data = shards.read(self.member) if self.member else self.data
        if data is None:
            return load_picture(self.path, max_pixels)
        file = io.BytesIO(data)
        file.name = str(self.path)  # named in errors
        return load_picture(file, max_pixels)

    def results(self, output: pathlib.Path, asked: Sequence[str] = ()) -> list[pathlib.Path]:
        """The files that parsing it writes but those of single people and frames, the record last."""
        stem, kinds = self.place.name, self.kinds(asked)
        names = result_names(stem, kinds)
        if self.is_video:
            endings = OF_VIDEO if "overlay" in kinds else OF_VIDEO[1:]
            names = [f"{stem}{ending}" for ending in (*endings, ".json")]
        return [output / self.place.parent / name for name in names]

    def state(self) -> list[int]:
        """Bytes and time of the last change, in nanoseconds; empty for a file that is not there.

        Of a picture in a shard they are the shard's, and where it lies there.
        """
        if self.camera is not None:
            return []
        if self.data is not None:
            return [len(self.data), zlib.crc32(self.data)]
        try:
            status = os.stat(self.member.shard if self.member else self.path)
        except OSError:
            return []
        inside = [self.member.offset, self.member.size] if self.member else []
        return [status.st_size, status.st_mtime_ns, *inside]


def find_pictures(sources: Sequence[str], list_file: str = "", recursive: bool = False) -> list[Source]:
    """Find the pictures, shards and videos of all sources, in order and without duplicates.

    Results of an earlier `rpcnn predict` among the files of a folder or pattern are left out, and so is what macOS and
    Windows leave there (:func:`rpcnn.pictures.is_litter`).

    Args:
        sources: files, folders, patterns, numbers of cameras and "-", the bytes of a picture by standard input. The
            folders that a pattern's wildcards match are kept below the output folder. Videos and shards are taken by
            their name or a pattern, not from folders; names of shards may have braces, "train-{00..12}.tar".
        list_file: a text file with the path of a picture in each line. The folders below the one that holds all of them
            are kept below the output folder.
        recursive: also take the pictures in the subfolders of folders, but not those with a dot before their name; they
            are kept below the output folder.

    Raises:
        ValueError: a source or the list has no picture, or the list cannot be read. Whether files are pictures is not
            known before they are read.
    """
    found: dict[str, Source] = {}
    for source in itertools.chain.from_iterable(map(expand_braces, sources)):
        if source == STANDARD_INPUT:
            found.setdefault(source, _standard_input())
            continue
        pictures = list(_of_source(source, recursive))
        if not pictures:
            raise ValueError(
                f"source: {source!r} is no image, folder of images or pattern that matches any{_deeper(source)}"
            )
        for picture in pictures:
            found.setdefault(os.path.abspath(picture.path), picture)
    for picture in _listed(pathlib.Path(list_file)) if list_file else ():
        found.setdefault(os.path.abspath(picture.path), picture)
    return list(found.values())


def open_shards(sources: Iterable[Source]) -> tuple[list[Source], list[str]]:
    """Put the pictures inside of shards in the place of the shards; their places are <stem of the shard>/<key>.

    Returns:
        The sources, and a line for each fault of the shards, see :func:`rpcnn.inference.shards.list_pictures`.
    """
    opened: list[Source] = []
    faults: list[str] = []
    for source in sources:
        if not is_shard(source.path):
            opened.append(source)
            continue
        folder = source.place.with_name(stem_of(source.path.name))
        members, found = list_pictures(source.path)
        opened += (Source(member.path, folder / member.key, member=member) for member in members)
        faults += found
    return opened, faults


def _of_source(source: str, recursive: bool) -> Iterator[Source]:
    path = pathlib.Path(source)
    if path.is_file():
        yield _below(path, path.parent)
        return
    if source.isascii() and source.isdecimal() and not path.exists():
        yield Source(pathlib.Path(f"/dev/video{source}"), pathlib.PurePath(f"camera_{source}"), camera=int(source))
        return
    base = path
    if path.is_dir():
        files = _walk(path) if recursive else files_in(path)
        files = (file for file in files if file.suffix.lower() in SUFFIXES)
    else:
        base = _base(path)
        matches = (pathlib.Path(match) for match in sorted(glob.glob(source, recursive=True)))
        files = (file for file in matches if file.is_file() and not is_litter(file))
    yield from (_below(file, base) for file in files if not is_result(file))


def _below(path: pathlib.Path, base: pathlib.Path) -> Source:
    return Source(path, path.relative_to(base).with_suffix(""))


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files of a folder and of its subfolders without a dot before their name."""
    yield from (path for path in files_in(folder) if not path.is_dir())
    for path in files_in(folder):
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from _walk(path)


def _base(pattern: pathlib.Path) -> pathlib.Path:
    """The folders of a pattern before its first wildcard."""
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1])
    return pathlib.Path(*fixed)


def _deeper(source: str) -> str:
    """A hint for a folder that has pictures in its subfolders only."""
    path = pathlib.Path(source)
    deeper = path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in _walk(path))
    return "; --recursive takes those of its subfolders" if deeper else ""


def _listed(path: pathlib.Path) -> Iterable[Source]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ValueError(f"--list: {path} cannot be read: {error.strerror}") from None
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    paths = [pathlib.Path(line) for line in lines if line.strip()]
    if not paths:
        raise ValueError(f"--list: {path} names no picture")
    if any("\0" in str(file) for file in paths):
        raise ValueError(f"--list: {path} must be a text file with the path of a picture in each line")
    base = os.path.commonpath([os.path.abspath(file.parent) for file in paths])
    for file in paths:
        yield Source(file, pathlib.PurePath(os.path.relpath(os.path.abspath(file), base)).with_suffix(""))


def _standard_input() -> Source:
    data = sys.stdin.buffer.read()
    if not data:
        raise ValueError("source: - reads a picture from standard input, which is empty")
    return Source(pathlib.Path("standard input"), pathlib.PurePath("stdin"), data)


def check_places(pictures: Sequence[Source], output: pathlib.Path, kinds: Sequence[str] = ()) -> None:
    """Raise ValueError if two sources would write one file, or one would replace a file that is no result.

    Args:
        kinds: to save; none for what is saved by default.
    """
    writers: dict[str, pathlib.Path] = {}  # of 100,000 pictures 70 MB; 200 MB if they were paths
    folders: set[pathlib.Path] = set()
    foreign: list[pathlib.Path] = []
    for picture in pictures:
        paths = picture.results(output, kinds)
        folders.add(paths[-1].parent)
        frames = video.frames_folder(paths[-1].parent, picture.place.name)
        if picture.is_video and set(kinds) - {"overlay"} and frames.is_dir():
            foreign += [path for path in frames.iterdir() if not is_result(path)]
        for path in paths:
            other = writers.setdefault(os.path.normcase(path), picture.path)
            if other != picture.path:
                raise ValueError(
                    f"source: {other} and {picture.path} would both write {path}; parse them with two commands and two "
                    "--output"
                )
        there = [path for path in paths if os.path.lexists(path)]
        foreign += there if there and not is_record(paths[-1]) else [path for path in there if not path.is_file()]
    for path in {path for folder in folders for path in (folder, *folder.parents)}:
        if writer := writers.get(os.path.normcase(path)):
            raise ValueError(f"source: {writer} would write {path}, a folder of other results; rename it")
    if "coco" in kinds:
        path = output / coco_file.NAME
        if writer := writers.get(os.path.normcase(path)):
            raise ValueError(f"source: {writer} and --save coco would both write {path}; rename the picture")
        foreign += [path] if os.path.lexists(path) and not coco_file.is_coco_file(path) else []
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            record = folder / f"{stem_of_person_file(path.name)}.json"
            if os.path.normcase(record) in writers and not is_record(record):
                foreign.append(path)
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise ValueError(f"--output: {foreign[0]}{more} would be replaced and is no result of predict; choose another")
