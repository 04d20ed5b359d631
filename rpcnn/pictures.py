"""Pictures as anybody has them: files, PIL images, arrays."""

import pathlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Picture = str | pathlib.Path | Image.Image | np.ndarray


def load_picture(image: Picture) -> np.ndarray:
    """A path, PIL image or array as uint8 RGB [H, W, 3], upright.

    Raises:
        ValueError: not a readable image, or an array of another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image: must be a uint8 RGB array [H, W, 3], got {image.dtype} {list(image.shape)}")
        return np.ascontiguousarray(image)
    if isinstance(image, str | pathlib.Path):
        try:
            image = Image.open(image)
            image.load()
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"image: {image} cannot be read: {error}") from None
    if not isinstance(image, Image.Image):
        raise ValueError(f"image: must be a path, a PIL image or an array, got {type(image).__name__}")
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))
