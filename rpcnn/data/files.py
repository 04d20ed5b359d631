"""Reading pictures, label maps and lists, and saying what is wrong with them."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labelmaps.png import read_byte_png
from rpcnn.labels import IGNORE

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


class DataFault(ValueError):
    """A file that cannot be used, with the file and the reason in the message."""


@contextlib.contextmanager
def all_faults() -> Iterator[Callable]:
    """Collects what is wrong with an image, so that one DataFault at the end of the block names everything.

    >>> with all_faults() as attempt:
    ...     labels = attempt(read_labels, path)  # None where it raised DataFault    # doctest: +SKIP
    """
    faults = []

    def attempt(read: Callable, *arguments):
        try:
            return read(*arguments)
        except DataFault as fault:
            faults.append(str(fault))

    yield attempt
    if faults:
        raise DataFault("; ".join(faults))


def read_image(path: Path, pixels: bool = True) -> tuple[np.ndarray | None, tuple[int, int]]:
    """RGB uint8 [H, W, 3] and (H, W). With `pixels` False the file is decoded to its end but only the size is returned.

    EXIF orientation is ignored, since label maps are aligned with the stored pixels. Raises DataFault for a file that
    is missing, truncated or no image.
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
    """Label map uint8 [H, W]: a single-channel file, or one channel of the RGB of a file that may have several.

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


def read_part_and_person_map(
    parts: Path, people: Path | None, size: tuple[int, int] | None, num_classes: int, ignore: int = IGNORE
) -> tuple[np.ndarray, NumberedPersonMaps]:
    """The label map uint8 [H, W] of an image and its people: the labels where the person map has their number.

    Args:
        parts: file of the label of each pixel: 0 background, below num_classes, or `ignore`, which becomes 255.
        people: file of the number of each pixel's person, 0 nobody; None is one person who has all labeled pixels.
        size: (H, W) that both must have; None does not check it.

    Raises:
        DataFault: names everything that is wrong with either file.
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
    return label_map, NumberedPersonMaps(label_map, numbers, int(numbers.max(initial=0)))


def read_id_list(path: Path) -> list[str] | None:
    """Ids listed one a line in a text file, folders and image suffixes taken off; None if there is no such file."""
    if not path.is_file():
        return None
    names = [Path(line.strip()) for line in path.read_text().splitlines() if line.strip()]
    return [name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name for name in names]


def images_in(folder: Path) -> dict[str, Path]:
    """The pictures of a folder, in the order of their names, by their stems."""
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}


def check_values(values: np.ndarray, num_classes: int, path: Path, ignore: int = IGNORE) -> None:
    """Raise DataFault unless every value of a label map is below `num_classes`, or `ignore` or 255 (both ignored)."""
    if values.max(initial=0) < num_classes:  # 20 times as fast as counting
        return
    counts = np.bincount(values.ravel(), minlength=256)
    counts[[ignore, IGNORE]] = 0
    wrong = np.flatnonzero(counts[num_classes:]) + num_classes
    if len(wrong):
        raise DataFault(f"{path}: label values must be below {num_classes} or {ignore}, got {wrong.tolist()}")


def check_size(shape: tuple[int, int], wanted: tuple[int, int], path: Path) -> None:
    """Raise DataFault unless a map has the height and width of its image."""
    if tuple(shape) != tuple(wanted):
        raise DataFault(f"{path}: is {shape[1]} x {shape[0]} pixels, its image {wanted[1]} x {wanted[0]}")
