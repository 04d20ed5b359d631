"""From linear light to a photograph: lens, exposure, tone curve, sensor noise, sharpening, JPEG."""

import io

import numpy as np
from PIL import Image, ImageFilter

from .fabrics import smooth_noise


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear 0..1 to sRGB 0..1, by a table of 4096 entries."""
    return _TABLE[(np.clip(linear, 0, 1) * 4095 + 0.5).astype(np.uint16)]


_X = np.linspace(0, 1, 4096)
_TABLE = np.where(_X <= 0.0031308, 12.92 * _X, 1.055 * _X ** (1 / 2.4) - 0.055).astype(np.float32)


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of a linear image [H, W, 3]; radius in pixels."""
    if radius <= 0:
        return image
    bright = Image.fromarray((to_srgb(image) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return (np.asarray(bright, np.float32) / 255) ** 2.2


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Linear float32 [H, W, 3] to uint8 [H, W, 3], as a camera and a web site would leave it."""
    height, width = image.shape[:2]
    if rng.random() < 0.4:  # vignette
        y = (np.arange(height, dtype=np.float32) / height - 0.5)[:, None]
        x = (np.arange(width, dtype=np.float32) / width - 0.5)[None]
        image = image * (1 - rng.uniform(0.2, 1.0) * (x * x + y * y))[..., None]
    if rng.random() < 0.3:  # uneven light
        image = image * (1 + rng.uniform(0.05, 0.25) * smooth_noise(rng, height, width, 3))[..., None]
    if rng.random() < 0.06:  # motion
        steps, dx, dy = int(rng.integers(2, 6)), rng.normal(0, 1), rng.normal(0, 0.6)
        image = sum(np.roll(image, (round(k * dy), round(k * dx)), (0, 1)) for k in range(steps)) / steps
    middle = float(np.sqrt(np.median(image.mean(-1)) * image.mean() + 1e-6))
    meter = np.clip(0.2 / middle, 0.4, 2.5) ** rng.uniform(0.2, 0.9)  # cameras expose for the middle
    image = image * (meter * np.exp(rng.normal(0, 0.22))) * (1 + rng.normal(0, 0.05, 3)).astype(np.float32)
    shoulder = rng.uniform(0.0, 0.35)
    image = np.maximum(image, 0)
    image = image * (1 + shoulder * image) / (1 + shoulder * image + shoulder * image * image)
    bright = to_srgb(image)
    if rng.random() < 0.8:  # contrast
        bright = (bright - 0.45) * rng.uniform(0.9, 1.5) + 0.45 + rng.normal(0, 0.025)
    if rng.random() < 0.45:  # saturation, to gray at times
        gray = bright.mean(-1, keepdims=True)
        amount = rng.uniform(0.0, 0.6) if rng.random() < 0.12 else rng.uniform(0.7, 1.35)
        bright = gray + (bright - gray) * amount
    picture = Image.fromarray((np.clip(bright, 0, 1) * 255).astype(np.uint8))
    kind = rng.random()
    if kind < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9))))
    elif kind < 0.42:  # enlarged from less
        scale = rng.uniform(0.5, 0.85)
        small = picture.resize((max(int(width * scale), 2), max(int(height * scale), 2)), Image.Resampling.BILINEAR)
        picture = small.resize((width, height), Image.Resampling.BICUBIC)
    elif kind < 0.6:
        picture = picture.filter(ImageFilter.UnsharpMask(1.2, int(rng.uniform(40, 130)), 0))
    if rng.random() < 0.6:
        pixels = np.asarray(picture, np.float32)
        grain = rng.standard_normal((height, width, 1 if rng.random() < 0.5 else 3), np.float32)
        pixels = pixels + grain * np.float32(rng.uniform(1, 7))
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(50, 97)))
    return np.asarray(Image.open(file).convert("RGB"))
