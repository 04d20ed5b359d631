"""Colors, patterns and folds of cloth. Colors are linear rgb in 0..1."""

import functools

import numpy as np
from PIL import Image

from rpcnn import _rendered

PATTERNS = 320
"""How many different patterns there are; each is the same for every scene, its dyes are not."""
FOLDS = 24
_SIZE = 192


def linear(color) -> np.ndarray:
    """sRGB in 0..1 to linear light."""
    color = np.clip(np.asarray(color, np.float32), 0, 1)
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4).astype(np.float32)


def smooth_noise(rng, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth noise float32 [height, width], about -1..1, with `cells` bumps along the long side."""
    rows = max(2, cells * height // max(height, width) + 2)
    columns = max(2, cells * width // max(height, width) + 2)
    grid = Image.fromarray(rng.normal(0, 0.7, (rows, columns)).astype(np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))


def draw_color(rng) -> np.ndarray:
    """A cloth's color, linear: black, white, gray, navy and beige are as common as all hues together."""
    kind = rng.random()
    if kind < 0.2:
        color = np.full(3, rng.uniform(0.04, 0.17)) * rng.uniform(0.9, 1.1, 3)
    elif kind < 0.36:
        color = np.full(3, rng.uniform(0.74, 0.97)) * rng.uniform(0.93, 1.0, 3)
    elif kind < 0.47:
        color = np.full(3, rng.uniform(0.22, 0.68)) * rng.uniform(0.93, 1.07, 3)
    elif kind < 0.58:
        color = np.array((0.13, 0.19, 0.36)) * rng.uniform(0.4, 1.7)
    elif kind < 0.66:
        color = np.array((0.62, 0.52, 0.38)) * rng.uniform(0.5, 1.4)
    else:
        hue, saturation, value = rng.random() * 6, rng.uniform(0.3, 0.95), rng.uniform(0.25, 0.95)
        k = (np.array((5, 3, 1)) + hue) % 6
        color = value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
    return linear(color)


@functools.cache
def pattern_shares(number: int) -> np.ndarray:
    """How much of dyes 1 to 3 lies over dye 0: uint8 [H, W, 4], of which alpha is not used. Read-only."""
    rng = np.random.default_rng((77, number))
    n = _SIZE
    y, x = np.mgrid[:n, :n].astype(np.float32) / n
    shares = np.zeros((n, n, 4), np.float32)
    kind = ("stripes", "stripes", "checks", "dots", "blotches", "print", "print", "flowers", "weave", "zigzag")[
        number % 10
    ]
    if kind == "stripes":
        count = int(rng.integers(3, 26))
        t = (y if rng.random() < 0.75 else x) * count % 1
        shares[..., 0] = t < rng.uniform(0.12, 0.6)
        if rng.random() < 0.4:
            shares[..., 1] = np.abs(t - rng.uniform(0.6, 0.9)) < rng.uniform(0.03, 0.1)
    elif kind == "checks":
        count = int(rng.integers(3, 18))
        for layer in range(int(rng.integers(1, 4))):
            width, at = rng.uniform(0.06, 0.5), rng.random()
            across, down = ((x * count + at) % 1 < width), ((y * count + at) % 1 < width)
            shares[..., layer] = 0.5 * across + 0.5 * down
    elif kind == "dots":
        count = int(rng.integers(5, 30))
        row = np.floor(y * count)
        dx, dy = (x * count + 0.5 * (row % 2)) % 1 - 0.5, (y * count) % 1 - 0.5
        shares[..., 0] = dx**2 + dy**2 < rng.uniform(0.02, 0.12)
    elif kind == "blotches":
        cells = int(rng.integers(4, 40))
        for layer in range(int(rng.integers(1, 4))):
            blur = rng.uniform(1, 12)
            shares[..., layer] = np.clip(smooth_noise(rng, n, n, cells) * blur + rng.uniform(-0.5, 0.5), 0, 1)
    elif kind == "print":
        for layer in range(int(rng.integers(1, 4))):
            cx, cy, r = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0.05, 0.2)
            dx, dy = (x - cx) / r, (y - cy) / r * rng.uniform(0.7, 2.5)
            shape = (np.maximum(abs(dx), abs(dy)) if rng.random() < 0.4 else np.hypot(dx, dy)) < 1
            letters = smooth_noise(rng, n, n, int(rng.integers(12, 60))) > rng.uniform(-0.8, 0.3)
            lines = (y * rng.integers(15, 40)) % 1 < 0.6
            shares[..., layer] = shape & letters & (lines | (rng.random() < 0.5))
    elif kind == "flowers":
        for _ in range(int(rng.integers(12, 90))):
            cx, cy, r = rng.random(), rng.random(), rng.uniform(0.02, 0.09)
            dx, dy = (x - cx + 0.5) % 1 - 0.5, (y - cy + 0.5) % 1 - 0.5
            angle, petals = np.arctan2(dy, dx), rng.integers(4, 8)
            inside = np.hypot(dx, dy) < r * (0.65 + 0.35 * np.cos(petals * angle + rng.uniform(0, 6)))
            layer = rng.integers(0, 2)
            shares[inside, :3] = 0
            shares[inside, layer] = 1
            shares[np.hypot(dx, dy) < 0.25 * r, 2] = 1
    elif kind == "weave":
        fine = rng.normal(0, 1, (n, n)).astype(np.float32)
        rows, columns = rng.normal(0, 1, (n, 1)), rng.normal(0, 1, (1, n))
        shares[..., 0] = np.clip(0.4 + 0.12 * fine + 0.12 * rows + 0.08 * columns, 0, 1)
        shares[..., 1] = np.clip(0.5 * smooth_noise(rng, n, n, 5), 0, 1)
    else:
        count, deep = int(rng.integers(4, 16)), rng.uniform(0.2, 1)
        wave = np.abs((x * rng.integers(3, 12)) % 1 - 0.5) * 2 * deep
        shares[..., 0] = (y * count + wave) % 1 < rng.uniform(0.2, 0.6)
    pixels = (np.clip(shares, 0, 1) * 255).astype(np.uint8)
    pixels.setflags(write=False)
    return pixels


def fold_slopes(number: int) -> np.ndarray:
    """Slopes of folds along u and v in red and green, 127.5 is level: uint8 [256, 256, 4], repeating."""
    rng = np.random.default_rng((78, number))
    n = 256
    f = np.fft.fftfreq(n)[:, None] * n, np.fft.fftfreq(n)[None, :] * n
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 4)
    along = np.cos(angle) * f[0] + np.sin(angle) * f[1]
    across = (-np.sin(angle) * f[0] + np.cos(angle) * f[1]) * stretch
    frequency = np.hypot(along, across)
    spectrum = np.exp(-(((frequency - rng.uniform(6, 18)) / rng.uniform(4, 12)) ** 2))
    height = np.fft.ifft2(np.fft.fft2(rng.normal(0, 1, (n, n))) * spectrum).real
    height = height / (height.std() + 1e-9)
    height = -np.abs(height) if rng.random() < 0.6 else height  # creases, or waves
    height += 0.3 * np.fft.ifft2(np.fft.fft2(rng.normal(0, 1, (n, n))) * np.exp(-((frequency / 40) ** 2))).real * 40 / n
    slopes = np.full((n, n, 4), 127, np.uint8)
    for channel, axis, sign in ((0, 1, 1), (1, 0, -1)):
        slope = np.roll(height, -1, axis) - np.roll(height, 1, axis)
        slopes[..., channel] = np.clip(127.5 + sign * 60 * slope / (slope.std() + 1e-9), 0, 255)
    return slopes


class Fabrics:
    """Patterns and folds as textures, made when first used."""

    def __init__(self):
        self._patterns: dict[int, _rendered.Texture] = {}
        self._folds: dict[int, _rendered.Texture] = {}
        self.plain = _rendered.Texture(np.full((4, 4, 4), 255, np.uint8))

    def pattern(self, rng) -> _rendered.Texture:
        number = int(rng.integers(PATTERNS))
        if number not in self._patterns:
            self._patterns[number] = _rendered.Texture(pattern_shares(number))
        return self._patterns[number]

    def folds(self, rng) -> _rendered.Texture:
        number = int(rng.integers(FOLDS))
        if number not in self._folds:
            self._folds[number] = _rendered.Texture(fold_slopes(number))
        return self._folds[number]

    def draw_dye(self, rng, plain: float = 0.45) -> dict:
        """Arguments of a dyed Material: dyes, pattern and its place. `plain` is the share without a pattern."""
        dyes = np.stack([draw_color(rng) for _ in range(4)])
        if rng.random() < 0.4:  # shades of one color
            dyes[1:] = dyes[0] * rng.uniform(0.3, 2.2, (3, 1))
        if rng.random() < plain:
            dyes[1:] = dyes[0] * rng.uniform(0.75, 1.25, (3, 1))
            return {"dyes": np.clip(dyes, 0, 1)} | (
                {"pattern": self.pattern(rng), "pattern_to_uv": _place(rng)} if rng.random() < 0.3 else {}
            )
        return {"dyes": np.clip(dyes, 0, 1), "pattern": self.pattern(rng), "pattern_to_uv": _place(rng)}


def _place(rng) -> np.ndarray:
    scale = np.exp(rng.uniform(np.log(0.9), np.log(3.5)))
    angle = 0.0 if rng.random() < 0.8 else rng.uniform(0, np.pi)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, rng.random()], [s, c, rng.random()]], np.float32)
