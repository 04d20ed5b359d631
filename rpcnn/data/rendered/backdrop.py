"""What is behind the people: pictures of yours without people, or painted and procedural places. Linear rgb."""

from pathlib import Path

import numpy as np
from PIL import Image

from rpcnn.data.painted.backdrop import paint_backdrop
from rpcnn.data.painted.canvas import Canvas
from rpcnn.pictures import files_in

from .fabrics import PATTERNS, draw_color, linear, pattern_shares, smooth_noise

_LARGEST = 720  # pixels a side that a picture is kept with; more would be thrown away


class Backdrops:
    """Draws backdrops.

    Args:
        folder: pictures (.jpg, .png) without people, in any subfolders; None for painted ones only.

    Raises:
        ValueError: the folder holds no picture.
    """

    def __init__(self, folder: Path | None = None):
        self.paths: list[Path] = []
        self._open: dict[int, Image.Image] = {}
        if folder is not None:
            self.paths = [
                path for path in files_in(Path(folder), "**/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
            ]
            if not self.paths:
                raise ValueError(f"--backgrounds: {folder} holds no .jpg or .png")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """float32 [height, width, 3] linear rgb in 0..1."""
        kind = rng.random()
        if self.paths and kind < 0.72:
            image = self._crop(rng, height, width)
            if rng.random() < 0.3:
                clutter(rng, image, int(rng.integers(1, 6)))
        elif kind < 0.86:
            canvas = Canvas(height, width)
            paint_backdrop(canvas, rng, height * rng.uniform(0.3, 0.62), rng.uniform(0.1, 0.9))
            image = linear(canvas.image)
        else:
            image = _plain(rng, height, width)
            if rng.random() < 0.8:
                clutter(rng, image, int(rng.integers(3, 40)))
        return np.ascontiguousarray(np.clip(image, 0, 1), np.float32)

    def _picture(self, number: int) -> Image.Image:
        if number not in self._open:
            try:
                image = Image.open(self.paths[number]).convert("RGB")
            except OSError as error:
                raise ValueError(f"--backgrounds: {self.paths[number]}: {error}") from None
            image.thumbnail((_LARGEST, _LARGEST))
            if len(self._open) > 300:
                self._open.clear()
            self._open[number] = image
        return self._open[number]

    def _crop(self, rng, height: int, width: int) -> np.ndarray:
        image = self._picture(int(rng.integers(len(self.paths))))
        largest = min(image.height / height, image.width / width)
        scale = largest * (rng.uniform(0.75, 1) if rng.random() < 0.6 else rng.uniform(0.4, 0.9))
        h, w = max(int(height * scale), 4), max(int(width * scale), 4)
        y, x = int(rng.integers(image.height - h + 1)), int(rng.integers(image.width - w + 1))
        cut = image.resize((width, height), Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))
        if rng.random() < 0.5:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = linear(np.asarray(cut, np.float32) / 255)
        if rng.random() < 0.3:  # another hour, another color
            pixels = pixels * rng.uniform(0.5, 1.3) * (1 + rng.normal(0, 0.08, 3)).astype(np.float32)
        return np.ascontiguousarray(pixels, np.float32)


def _plain(rng, height: int, width: int) -> np.ndarray:
    """A wall, a studio or a blurred nothing."""
    top, bottom = draw_color(rng), draw_color(rng)
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image = np.repeat(top + (bottom - top) * down * rng.uniform(0, 1), width, 1)
    for cells in (3, 9, 30):
        image *= 1 + rng.uniform(0, 0.2) * smooth_noise(rng, height, width, cells)[..., None]
    return image.astype(np.float32)


def texture(rng, height: int, width: int) -> np.ndarray:
    """A patterned surface, float32 [height, width, 3] linear."""
    shares = Image.fromarray(pattern_shares(int(rng.integers(PATTERNS)))[..., :3])
    n = rng.uniform(0.3, 1) * shares.width
    x, y = rng.uniform(0, shares.width - n, 2)
    m = (
        np.asarray(shares.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + n, y + n)), np.float32)
        / 255
    )
    image = np.broadcast_to(draw_color(rng), (height, width, 3))
    for k in range(3):
        image = image + m[..., k, None] * (draw_color(rng) - image)
    return image


def clutter(rng, image: np.ndarray, count: int) -> None:
    """Draw furniture-like, leaf-like and wall-like shapes into a linear image [H, W, 3]."""
    height, width = image.shape[:2]
    for _ in range(count):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        rx, ry = (np.exp(rng.uniform(np.log(4), np.log(side * part))) for side, part in ((width, 0.35), (height, 0.45)))
        x0, x1, y0, y1 = int(max(cx - rx, 0)), int(min(cx + rx, width)), int(max(cy - ry, 0)), int(min(cy + ry, height))
        if x1 - x0 < 3 or y1 - y0 < 3:
            continue
        x = ((np.arange(x0, x1, dtype=np.float32) - cx) / rx)[None]
        y = ((np.arange(y0, y1, dtype=np.float32) - cy) / ry)[:, None]
        kind = rng.random()
        if kind < 0.45:
            skew = rng.normal(0, 0.15)
            inside = (np.abs(x + skew * y) < 0.9) & (np.abs(y - skew * x) < 0.9)
        elif kind < 0.6:
            inside = x * x + y * y < 0.9
        else:
            inside = x * x + y * y + 0.7 * smooth_noise(rng, y1 - y0, x1 - x0, int(rng.integers(3, 14))) < 0.6
        surface = texture(rng, y1 - y0, x1 - x0) if rng.random() < 0.35 else draw_color(rng) * rng.uniform(0.4, 1.1)
        shade = 1 + 0.25 * rng.normal() * x + 0.25 * rng.normal() * y + 0.12 * smooth_noise(rng, y1 - y0, x1 - x0, 12)
        part = image[y0:y1, x0:x1]
        np.copyto(part, surface * np.clip(shade, 0.1, 2)[..., None], where=inside[..., None])
