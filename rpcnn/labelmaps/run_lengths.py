"""COCO's compressed run lengths (RLE), decoded directly into a label map.

pycocotools decodes each code to a whole mask, which is a hundred times as slow, and returns uninitialized memory if a
code is too short; here that is an error. csrc/labelmaps/run_lengths.h describes the encoding.
"""

import numpy as np

from . import compiled

MOST_DIGITS = 7  # of 5 bits: lengths below 2³¹ and their differences


def encode(mask: np.ndarray) -> str:
    """Encode a mask [H, W] with pycocotools; runs go down the columns."""
    from pycocotools import mask as codes

    return codes.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")


def paint_runs(columns: np.ndarray, code: str | bytes, value: int) -> None:
    """Write a value into a map where a mask is 1.

    Args:
        columns: uint8 [W, H], contiguous: the transposed map, since runs go down the columns.
        code: the mask's compressed run lengths.
        value: 0..255.

    Raises:
        ValueError: the code is invalid or its length is not W × H pixels; some pixels may have been written.
    """
    if not isinstance(code, str | bytes):
        raise ValueError(f"run lengths must be pycocotools' compressed text, got {type(code).__name__}")
    code = code.encode("utf-8") if isinstance(code, str) else code
    paint = compiled.core.paint_runs if compiled.core else _paint_numpy
    if not paint(columns, code, value):
        raise ValueError(f"run lengths must make up the {columns.size} pixels of the size, got {_shortened(code)}")


def _paint_numpy(columns: np.ndarray, code: bytes, value: int) -> bool:
    digits = np.frombuffer(code, np.uint8).astype(np.int64) - ord("0")
    last = digits < 32
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or not last[-1]:
        return columns.size == len(digits) == 0
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MOST_DIGITS:
        return False
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (5 * place), starts)
    numbers -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    runs = numbers.copy()
    runs[1::2], runs[2::2] = np.cumsum(numbers[1::2]), np.cumsum(numbers[2::2])
    if runs.min() < 0 or runs.sum() != columns.size:
        return False
    columns.reshape(-1)[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = value
    return True


def _shortened(code: bytes) -> str:
    return repr(code if len(code) <= 20 else code[:20] + b"...")
