"""Reads maps of labels and of person numbers: the one rule for the truth and for predictions.

A map holds a number per pixel: gray of 8 or 16 bits, or a palette, of which the indices count. What cannot be such a
map, or is surely not what its writer meant, is refused: colors, floats, gray of fewer than 8 bits, lossy files, and a
palette whose colors name other labels.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from rpcnn.labels import voc_palette
from rpcnn.pictures import opened

from .png import read_byte_png

LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
"""Formats of files in which every pixel keeps its number."""
_VOC = {color: label for label, color in enumerate(voc_palette(256))}
_VOC_BYTES = bytes(value for color in _VOC for value in color)


def read_map(path: Path, channel: int | None = None) -> np.ndarray:
    """Read the numbers of a map.

    Args:
        path: the file.
        channel: the RGB channel, 0..2, to read from a file with several channels; None allows one channel only.

    Returns:
        uint8 or another integer dtype [H, W].

    Raises:
        FileNotFoundError: no such file.
        OSError: the file cannot be opened.
        ValueError: it is no such map. The message has the reason, not the path.
    """
    found = read_byte_png(path)
    if found is not None:
        values, palette = found
    else:
        with opened(path, formats=LOSSLESS) as image:
            bits = _gray_bits(image)
            if channel is not None and image.mode not in ("L", "P", "I;16", "I", "F"):
                image = image.convert("RGB").getchannel(channel)
            palette = bytes(image.getpalette() or []) if image.mode == "P" else b""
            values = np.array(image)
        if bits < 8:
            raise ValueError(f"has gray of {bits} bits, which readers stretch to 0..255; save it with 8 bits")
    if values.ndim != 2:
        raise ValueError(f"must hold a value per pixel (gray or palette), got {values.shape[2]} channels")
    if values.dtype.kind not in "iu":
        raise ValueError(f"must hold integers, got {values.dtype}")
    check_palette(values, palette)
    return values


def _gray_bits(image: Image.Image) -> int:
    """Bits of a gray value as stored; 8 for all that Pillow does not stretch."""
    if image.mode == "1":
        return 1
    tiles = getattr(image, "tile", None)
    stored = tiles[0][3] if image.mode == "L" and tiles else ""
    mode = stored if isinstance(stored, str) else str(next(iter(stored or ()), ""))
    return int(mode[2]) if mode[:3] in ("L;2", "L;4") else 8


def check_palette(values: np.ndarray, palette: bytes) -> None:
    """Refuse a map whose palette has the PASCAL VOC colors of labels at the indices of other labels.

    Programs that sort or shorten a palette renumber the pixels: the picture looks the same, and every number is wrong.
    Palettes of other colors say nothing about the labels and are not looked at.

    Args:
        values: the indices [H, W].
        palette: RGB bytes by index, b"" for a gray map.

    Raises:
        ValueError: names an index, the label of its color and the remedy.
    """
    if palette == _VOC_BYTES[: len(palette)]:
        return
    labels = [_VOC.get((palette[i], palette[i + 1], palette[i + 2])) for i in range(0, len(palette) - 2, 3)]
    if None in labels:
        return
    used = np.flatnonzero(np.bincount(values.ravel(), minlength=len(labels))[: len(labels)])
    times = Counter(labels)  # more than one: the filling behind the last color
    wrong = [int(index) for index in used if labels[index] != index and times[labels[index]] == 1]
    if wrong:
        raise ValueError(
            f"has the colors of the labels in another order: value {wrong[0]} has the color of label "
            f"{labels[wrong[0]]}; a program may have sorted the palette, and if the values are right, save it as gray"
        )
