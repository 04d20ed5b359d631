"""Reads and checks images, label maps and lists of ids."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labelmaps.read import read_map
from rpcnn.labels import IGNORE
from rpcnn.pictures import PictureError, as_rgb, files_in, opened

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


class DataFault(ValueError):
    """Raised for a file that cannot be used. The message has the file and the reason."""

    passing = False
    """Whether the system refused to open or read the file: its rights, too many open files, a lost disk. The file may
    be sound, so that no index remembers the fault."""


def _fault(message: str, error: Exception) -> DataFault:
    fault, cause = DataFault(message), error if isinstance(error, OSError) else error.__cause__
    fault.passing = isinstance(cause, OSError) and cause.errno is not None  # Pillow's own OSErrors have none
    return fault


@contextlib.contextmanager
def all_faults() -> Iterator[Callable]:
    """Collect all DataFaults of a block, and raise one with all their messages at its end.

    >>> with all_faults() as attempt:
    ...     labels = attempt(read_labels, path)  # None where it raised DataFault    # doctest: +SKIP
    """
    faults = []

    def attempt(read: Callable, *arguments):
        try:
            return read(*arguments)
        except DataFault as fault:
            faults.append(fault)

    yield attempt
    if faults:
        joined = DataFault("; ".join(map(str, faults)))
        joined.passing = any(fault.passing for fault in faults)
        raise joined


def read_image(path: Path, pixels: bool = True) -> tuple[np.ndarray | None, tuple[int, int]]:
    """Read an image. EXIF orientation is ignored, since label maps are aligned with the stored pixels.

    Args:
        path: the file.
        pixels: if False, the whole file is decoded to check it, but only its size is returned.

    Returns:
        RGB uint8 [H, W, 3], converted as by :func:`rpcnn.pictures.as_rgb`, or None without `pixels`; and (H, W).

    Raises:
        DataFault: the file is missing, truncated or not an image.
    """
    try:
        with opened(path) as image:
            size = (image.height, image.width)
            if not pixels:
                # a JPEG at 1/8 size still reads the file to its end, in a fraction of the time
                image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
                image.load()
                return None, size
            return np.array(as_rgb(image)), size
    except FileNotFoundError:
        raise DataFault(f"{path} is missing") from None
    except PictureError as error:
        raise _fault(f"{path}: cannot be read as an image ({error})", error) from error


def read_labels(path: Path, channel: int | None = None) -> np.ndarray:
    """Read a label map.

    Args:
        path: the file.
        channel: the RGB channel, 0..2, to read from a file with several channels; None allows one channel only.

    Returns:
        uint8 [H, W].

    Raises:
        DataFault: the file is missing or truncated, is no map by the rule of :mod:`rpcnn.labelmaps.read`, or has values
            above 255.
    """
    try:
        values = read_map(path, channel)
    except FileNotFoundError:
        raise DataFault(f"{path} is missing") from None
    except (PictureError, OSError) as error:
        raise _fault(f"{path}: cannot be read as a label map ({error})", error) from error
    except ValueError as error:
        raise DataFault(f"{path}: a label map {error}") from None
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 255:
            raise DataFault(f"{path}: label values must be in 0..255, got up to {values.max()}")
        values = values.astype(np.uint8)
    return values


def read_part_and_person_map(
    parts: Path, people: Path | None, size: tuple[int, int] | None, num_classes: int, ignore: int = IGNORE
) -> tuple[np.ndarray, NumberedPersonMaps]:
    """Read the label map and the person maps of an image from two files with one value per pixel.

    Args:
        parts: file with the label of each pixel: 0 background, below num_classes, or `ignore`, which becomes 255.
        people: file with the person number of each pixel, 0 without a person. None assigns all labeled pixels to one
            person. A number 255 that occurs on ignored pixels only is no person.
        size: (H, W) that both must have; None does not check it.
        num_classes: number of classes, background included.
        ignore: label of ignored pixels.

    Returns:
        The label map uint8 [H, W], and the person maps.

    Raises:
        DataFault: a file cannot be used. The message has all faults of both files.
    """
    with all_faults() as attempt:
        label_map = attempt(read_labels, parts)
        numbers = attempt(read_labels, people) if people else None
        for values, path in ((label_map, parts), (numbers, people)):
            if values is not None and size is not None:
                attempt(check_size, values.shape, size, path)
        if label_map is not None:
            attempt(check_values, label_map, num_classes, parts, ignore)
    if ignore != IGNORE:
        label_map = np.where(label_map == ignore, np.uint8(IGNORE), label_map)
    if numbers is None:
        numbers = ((label_map > 0) & (label_map != IGNORE)).astype(np.uint8)
    elif numbers.shape != label_map.shape:
        check_size(numbers.shape, label_map.shape, people)
    elif numbers.max(initial=0) == IGNORE and (label_map[marked := numbers == IGNORE] == IGNORE).all():
        numbers = np.where(marked, np.uint8(0), numbers)
    return label_map, NumberedPersonMaps(label_map, numbers, int(numbers.max(initial=0)))


def read_id_list(path: Path) -> list[str] | None:
    """Read a text file with one id per line, without folders and image suffixes; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataFault(f"{path}: cannot be read as a list of ids ({error})") from None
    names = [Path(line.strip()) for line in lines if line.strip()]
    return [name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name for name in names]


def images_in(folder: Path) -> dict[str, Path]:
    """List the images of a folder: stem to path, in the order of their names; the last one of equal stems."""
    return {path.stem: path for path in image_files(folder)}


def image_files(folder: Path) -> list[Path]:
    """List the files of a folder that are images by their suffix, in the order of their names."""
    return [path for path in files_in(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def check_values(values: np.ndarray, num_classes: int, path: Path, ignore: int = IGNORE) -> None:
    """Raise DataFault unless every value of a label map is below `num_classes`, `ignore` or 255."""
    if values.max(initial=0) < num_classes:  # 20 times as fast as counting
        return
    counts = np.bincount(values.ravel(), minlength=256)
    counts[[ignore, IGNORE]] = 0
    wrong = np.flatnonzero(counts[num_classes:]) + num_classes
    if len(wrong):
        raise DataFault(f"{path}: label values must be below {num_classes} or {ignore}, got {wrong.tolist()}")


def check_size(shape: tuple[int, int], expected: tuple[int, int], path: Path) -> None:
    """Raise DataFault unless a map has the height and width of its image."""
    if tuple(shape) != tuple(expected):
        raise DataFault(f"{path}: is {shape[1]} x {shape[0]} pixels, its image {expected[1]} x {expected[0]}")
