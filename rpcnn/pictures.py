"""Pictures as anybody has them: files, PIL images, arrays. The one place that opens picture files."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from rpcnn.frames import as_frame

Picture = str | pathlib.Path | IO[bytes] | Image.Image | np.ndarray | Tensor

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened, whatever a file's name says. All are decoded by Pillow itself: EPS would start Ghostscript."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".avifs", ".jp2", ".j2k", ".jpf", ".jpx"),
    *(".heic", ".heif", ".jxl", ".tga", ".psd", ".dng"),
)
"""Of the files of a folder that are taken for pictures. Those of the last line are not opened, but named."""
MAX_PIXELS = 100_000_000
"""A picture of so many pixels takes some 2.5 GB; its file may be a few kilobytes."""


def is_litter(path: pathlib.Path) -> bool:
    """Whether a file is one that macOS or Windows leaves among the pictures of a folder; it is never a picture."""
    return path.name.startswith("._") or path.name.lower() in (".ds_store", "thumbs.db", "desktop.ini")


def files_in(folder: pathlib.Path, pattern: str = "*") -> list[pathlib.Path]:
    """The paths of a folder that match a pattern, in the order of their names, without litter (`is_litter`)."""
    return sorted(path for path in folder.glob(pattern) if not is_litter(path))


class PictureError(ValueError):
    """Raised for a picture that cannot be used. The message has the reason, not the path."""


@contextlib.contextmanager
def opened(
    path: str | pathlib.Path | IO[bytes], formats: Sequence[str] = FORMATS, max_pixels: int | None = None
) -> Iterator[Image.Image]:
    """Open a picture file; pixels are decoded when they are first used in the block.

    Args:
        path: the file; or a binary file object that is open, read from its beginning.
        formats: names of Pillow's formats.
        max_pixels: refuse pictures with more, before they are decoded. None leaves it to Pillow, which refuses more
            than twice PIL.Image.MAX_IMAGE_PIXELS (179 million).

    Raises:
        FileNotFoundError: no such file.
        PictureError: for whatever a broken or hostile file raises in the block.
    """
    with _named():
        try:
            image = Image.open(path, formats=_decoded(tuple(formats)))
        except UnidentifiedImageError:
            raise PictureError(f"it is none of {', '.join(formats)}") from None
        except Image.DecompressionBombError as error:
            raise PictureError(f"it has too many pixels ({error})") from None
        with image:
            _check_pixels(image, max_pixels)
            yield image


@functools.cache
def _decoded(formats: tuple[str, ...]) -> list[str]:
    """The formats that this Pillow decodes; it may be built without some, AVIF among them."""
    Image.init()
    return [name for name in formats if name in Image.OPEN]


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Context that turns whatever Pillow raises for a broken picture into PictureError."""
    try:
        yield
    except (PictureError, FileNotFoundError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, RuntimeError, MemoryError, …
        raise PictureError(f"{error}" or type(error).__name__) from error


def _check_pixels(image: Image.Image, max_pixels: int | None) -> None:
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise PictureError(
            f"it has {image.width} x {image.height} pixels, more than max_pixels (--max-pixels) = {max_pixels}"
        )


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to RGB.

    Of several frames the current one is taken, the first one of a file. 16-bit gray values, also those of mode I, are
    divided by 257. Transparent pixels lie on white. CMYK, palettes and the others are converted as Pillow does.

    Raises:
        ValueError: float pixels, which have no stated range; values of mode I outside 0..65535; a mode that Pillow does
            not convert.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose range is not known; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if low < 0 or high > 65535:
            raise ValueError(f"its pixels must lie in 0..65535 (16 bits), got {low}..{high}")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")


def load_picture(image: Picture, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture of any kind as uint8 RGB [H, W, 3], upright.

    Args:
        image: a file in one of FORMATS or its bytes in a binary file object (io.BytesIO), a PIL image of any mode (see
            :func:`as_rgb`), or an array or tensor as :func:`rpcnn.frames.as_frame` takes it. Of several frames the
            first one is taken. EXIF orientation is applied.
        max_pixels: files and PIL images with more pixels are refused before they are decoded.

    Raises:
        ValueError: not a readable image, too many pixels, or an array of another shape, dtype or range.
    """
    if isinstance(image, np.ndarray | Tensor):
        frame = as_frame(image)
        return frame if frame.shape[2] == 3 else np.array(as_rgb(Image.fromarray(frame)))
    try:
        if isinstance(image, Image.Image):
            _check_pixels(image, max_pixels)
            with _named():
                return _upright(image)
        if isinstance(image, str | pathlib.Path) or hasattr(image, "read"):
            with opened(image, max_pixels=max_pixels) as picture:
                return _upright(picture)
    except FileNotFoundError:
        raise ValueError(f"image: {image} does not exist") from None
    except PictureError as error:
        raise ValueError(f"image: {_name_of(image)} cannot be read: {error}") from None
    raise ValueError(
        f"image: must be a path, a binary file, a PIL image, an array or a tensor, got {type(image).__name__}"
    )


def _name_of(image: Picture) -> str:
    if isinstance(image, Image.Image):
        return f"the PIL image {image.mode} {image.size}"
    return f"{image}" if isinstance(image, str | pathlib.Path) else f"{getattr(image, 'name', 'the file object')}"


def _upright(image: Image.Image) -> np.ndarray:
    if 0 in image.size:
        raise PictureError("it has no pixels")
    return np.array(as_rgb(ImageOps.exif_transpose(image)))
