"""The pictures inside tar files, WebDataset's shards: found by the headers, read one by one, never extracted.

WebDataset's own reader is not used: it reads a member of any size into memory, takes a tar that is cut off between two
members for a whole one, and runs names that begin with "pipe:" in a shell.
"""

import gzip
import os
import pathlib
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from rpcnn.pictures import SUFFIXES as OF_PICTURES

SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""Of the files that are taken for shards."""
MAX_BYTES = 1 << 30
"""Of a member that is read: 100 million pixels of 16-bit RGBA, not compressed, take 0.8 of it."""
_MAX_HEADER = 1 << 20
_MAX_FAULTS = 100
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)(\.[^/]*)", re.DOTALL)
"""WebDataset's: the key ends at the first dot of the file's name, what follows says what it is."""


class Member(NamedTuple):
    """A picture in a shard."""

    shard: pathlib.Path
    name: str
    key: str
    """Its name without the ending."""
    offset: int
    """Of its first byte, after decompression."""
    size: int

    @property
    def path(self) -> pathlib.Path:
        """What it is called in messages."""
        return self.shard / self.name


def is_shard(path: str | pathlib.Path) -> bool:
    """Whether a file is taken for a shard, by its name."""
    return str(path).lower().endswith(SUFFIXES)


def stem_of(name: str) -> str:
    """The name of a shard without its ending."""
    return re.sub(r"(\.tar|\.tar\.gz|\.tgz)\Z", "", name, flags=re.IGNORECASE)


def expand_braces(source: str) -> Iterator[str]:
    """The shards of a name like "train-{000000..000012}.tar"; any other source as it is.

    Raises:
        ValueError: braces that do not fit, or braceexpand (of the extra `tar`) is not installed.
    """
    if "{" not in source or not is_shard(source) or os.path.exists(source):
        yield source
        return
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise ValueError(
            f'source: {source!r} has braces, which need the package braceexpand: pip install "rpcnn[tar]"'
        ) from None
    try:
        yield from braceexpand(source, escape=False)  # a backslash is Windows' separator
    except ValueError as error:
        raise ValueError(f"source: the braces of {source!r} do not fit: {error}") from None


def list_pictures(shard: pathlib.Path) -> tuple[list[Member], list[str]]:
    """Find the pictures of a shard by its headers.

    Pictures are the members whose ending, all that follows the first dot of the file's name, is one of a picture.

    Returns:
        The pictures in their order, one of each key, and a line for each fault: a picture that is not read, with the
        reason, or a shard that has no picture or breaks off. What comes before is found. Of more than 100 pictures that
        are not read, the rest is counted.
    """
    found: dict[str, Member] = {}
    faults: list[str] = []
    more = 0
    try:
        for entry in _entries(shard):
            match = _NAME.fullmatch(entry.name)
            if not match or match[2].lower() not in OF_PICTURES or entry.isdir():
                continue
            fault = _fault(entry)
            name, key = (pathlib.PurePosixPath(text).as_posix() for text in (entry.name, match[1]))
            if not fault and key in found:
                fault = "it is there twice" if found[key].name == name else f"{found[key].name} has the same key"
            if fault and len(faults) < _MAX_FAULTS:
                faults.append(f"shard: {shard}/{_shown(entry.name)} is not parsed: {fault}")
            elif fault:
                more += 1
            else:
                found[key] = Member(shard, name, key, entry.offset_data, entry.size)
    except Exception as error:  # of a hostile tar: tarfile and gzip raise OSError, EOFError, ValueError, RecursionError
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        faults.append(f"shard: {shard} cannot be read{' to its end' if found else ''}: {_shown(reason)}")
    if more:
        faults.append(f"shard: {shard}: {more} more are not parsed")
    if not found and not faults:
        faults.append(f"shard: {shard} has no picture; their names are like key.jpg, with one dot")
    return list(found.values()), faults


def _entries(shard: pathlib.Path) -> Iterator[tarfile.TarInfo]:
    """The members of a shard whose data are all there. Raises whatever is wrong with what follows."""
    with _open(shard) as file:
        headers = _Headers(file)
        with tarfile.open(fileobj=headers, mode="r:") as tar:  # type: ignore[call-overload]
            entry = tar.next()
            while entry is not None:
                try:
                    following = tar.next()
                except Exception:
                    if headers.last:  # it is the next header that is bad
                        yield entry
                    raise
                yield entry
                entry = following
                tar.members.clear()  # kept otherwise, all of them
        if headers.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it breaks off, or the header of its next file is damaged")


class _Headers:
    """A file for tarfile to read headers from, which it otherwise reads at any length, and backwards without end.

    `last` is what was read since it last skipped data.
    """

    def __init__(self, file: BinaryIO | gzip.GzipFile):
        self.file, self.last = file, b""

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header has {size} bytes, more than {_MAX_HEADER}")
        self.last = self.file.read(size)
        return self.last

    def seek(self, position: int) -> None:
        if position < self.tell():
            raise tarfile.ReadError("a header has a size below 0")
        self.last = b""
        self.file.seek(position)


def _fault(entry: tarfile.TarInfo) -> str:
    """Why a member is not read, "" if it is."""
    path = pathlib.PureWindowsPath(entry.name)  # of all systems: Windows' names may lead out in more ways
    if path.drive or path.root or ".." in path.parts:
        return "its name leads out of the shard"
    if _shown(entry.name) != entry.name:
        return "its name has control characters"
    if len(os.fsencode(entry.name)) > 1000 or any(len(os.fsencode(part)) > 200 for part in entry.name.split("/")):
        return "its name is too long"
    if not entry.isreg() or entry.issparse():
        return "it is a link, a device or a sparse file"
    if entry.size > MAX_BYTES:
        return f"it has {entry.size} bytes, more than {MAX_BYTES}"
    return ""


def _shown(name: str) -> str:
    """A name without what moves a terminal's cursor."""
    return re.sub(r"[\0-\x1f\x7f-\x9f]", lambda match: rf"\x{ord(match[0]):02x}", name)


class ShardReader:
    """Reads pictures of shards. The last shard stays open: in a compressed one there is a way forward alone."""

    def __init__(self) -> None:
        self._path: pathlib.Path | None = None
        self._file: BinaryIO | gzip.GzipFile | None = None

    def read(self, member: Member) -> bytes:
        """The bytes of a picture. Raises ValueError if they cannot be read."""
        try:
            if self._file is None or self._path != member.shard:
                self.close()
                self._path, self._file = member.shard, _open(member.shard)
            self._file.seek(member.offset)
            data = self._file.read(member.size)
        except Exception as error:  # gzip raises OSError, EOFError and zlib.error
            self.close()
            raise ValueError(f"image: {member.path} cannot be read: {error}") from None
        if len(data) != member.size:
            raise ValueError(f"image: {member.path} cannot be read: the shard has changed")
        return data

    def close(self) -> None:
        """Close the last shard."""
        if self._file is not None:
            self._file.close()
        self._path = self._file = None


def _open(shard: pathlib.Path) -> BinaryIO | gzip.GzipFile:
    """Open a shard, compressed or not, by its content."""
    with open(shard, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(shard) if compressed else open(shard, "rb")
