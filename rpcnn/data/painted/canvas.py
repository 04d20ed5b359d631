"""A canvas of colors and labels, and the shapes of painted scenes.

Every shape is a coverage map in 0..1 on a small window. Colors are blended by the coverage, so that edges are smooth.
The label of a pixel changes if the shape covers more than half of it. Colors and labels come from the same coverage, so
labels are exact.

Pixel (row i, column j) has its center at x = j + 0.5, y = i + 0.5.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

KEEP = -1
"""Category of shapes that do not change labels: shadows, eyes, seams."""

_SUPERSAMPLING = 4  # per axis, for outlines drawn by PIL: 17 levels of coverage along an edge


@dataclass
class Shape:
    """A window of the canvas: its corner, the coverage [h, w] in 0..1, and two coordinates [h, w] on the shape.

    `across` runs from -1 to 1 from one side to the other, `along` in pixels from one end to the other. Textures and
    shading use them.
    """

    x: int
    y: int
    coverage: np.ndarray
    across: np.ndarray
    along: np.ndarray

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """x [1,w] and y [h,1] of the pixel centers on the canvas."""
        h, w = self.coverage.shape
        xs = np.arange(self.x, self.x + w, dtype=np.float32)[None] + 0.5
        ys = np.arange(self.y, self.y + h, dtype=np.float32)[:, None] + 0.5
        return xs, ys


class Canvas:
    """Holds image float32 [H, W, 3] in 0..1, label_map uint8 [H, W], numbers uint8 [H, W] (0: no person)."""

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self.image = np.zeros((height, width, 3), np.float32)
        self.label_map = np.zeros((height, width), np.uint8)
        self.numbers = np.zeros((height, width), np.uint8)

    def stamp(self, shape: Shape | None, color, label: int = KEEP, number: int = 0) -> None:
        """Blend `color` ((3,) or [h,w,3]) over the image and set the labels under the shape."""
        if shape is None:
            return
        h, w = shape.coverage.shape
        window = (slice(shape.y, shape.y + h), slice(shape.x, shape.x + w))
        below = self.image[window]
        below += shape.coverage[..., None] * (np.asarray(color, np.float32) - below)
        if label != KEEP:
            covered = shape.coverage > 0.5
            self.label_map[window][covered] = label
            self.numbers[window][covered] = number

    def _window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int] | None:
        left, top = max(int(np.floor(x0)) - 1, 0), max(int(np.floor(y0)) - 1, 0)
        right, bottom = min(int(np.ceil(x1)) + 1, self.width), min(int(np.ceil(y1)) + 1, self.height)
        return (left, top, right, bottom) if left < right and top < bottom else None

    def tube(self, points, radii) -> Shape | None:
        """Tapered capsules along a chain of points [k,2], with a radius at each: arms, legs, sleeves, poles."""
        points, radii = np.asarray(points, np.float32), np.asarray(radii, np.float32)
        reach = radii[:, None] + 1
        window = self._window(*(points - reach).min(0), *(points + reach).max(0))
        if window is None:
            return None
        left, top, right, bottom = window
        xs = np.arange(left, right, dtype=np.float32)[None] + 0.5
        ys = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
        nearest = across = along = None
        traveled = 0.0
        for (ax, ay), (bx, by), ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            dx, dy = bx - ax, by - ay
            length = float(np.hypot(dx, dy)) + 1e-6
            px, py = xs - ax, ys - ay
            t = np.clip((px * dx + py * dy) / length**2, 0, 1)
            radius = ra + (rb - ra) * t
            distance = np.hypot(px - t * dx, py - t * dy) - radius
            side = np.clip((py * dx - px * dy) / (length * np.maximum(radius, 0.5)), -1, 1)
            if nearest is None:
                nearest, across, along = distance, side, traveled + t * length
            else:
                closer = distance < nearest
                nearest = np.where(closer, distance, nearest)
                across = np.where(closer, side, across)
                along = np.where(closer, traveled + t * length, along)
            traveled += length
        return Shape(left, top, np.clip(0.5 - nearest, 0, 1), across, along)

    def ellipse(self, x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Shape | None:
        """An ellipse of half axes rx, ry, turned by `angle` radians."""
        rx, ry = max(rx, 0.3), max(ry, 0.3)
        cos, sin = np.cos(angle), np.sin(angle)
        half_w, half_h = np.hypot(rx * cos, ry * sin) + 1, np.hypot(rx * sin, ry * cos) + 1
        window = self._window(x - half_w, y - half_h, x + half_w, y + half_h)
        if window is None:
            return None
        left, top, right, bottom = window
        px = np.arange(left, right, dtype=np.float32)[None] + (0.5 - x)
        py = np.arange(top, bottom, dtype=np.float32)[:, None] + (0.5 - y)
        u, v = (px * cos + py * sin) / rx, (py * cos - px * sin) / ry
        r = np.hypot(u, v)
        # distance to the outline to first order: (r - 1) over the gradient of r
        gradient = np.hypot(u / rx, v / ry) / np.maximum(r, 1e-3)
        coverage = np.clip(0.5 - (r - 1) / np.maximum(gradient, 1e-3), 0, 1)
        return Shape(left, top, coverage.astype(np.float32), np.clip(u, -1, 1), (v + 1) * ry)

    def outline(self, points, smooth: bool = True) -> Shape | None:
        """A closed outline through points [k,2]: with corners, or smooth (Catmull-Rom)."""
        points = np.asarray(points, np.float32)
        if smooth:
            points = _catmull_rom(points)
        window = self._window(*points.min(0), *points.max(0))
        if window is None:
            return None
        left, top, right, bottom = window
        s = _SUPERSAMPLING
        mask = Image.new("L", ((right - left) * s, (bottom - top) * s))
        corners = (points - (left, top)) * s - 0.5
        ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=255)
        coverage = np.asarray(mask.reduce(s), np.float32) / 255
        inside = coverage > 0.5
        w = right - left
        first = np.where(inside.any(1), inside.argmax(1), 0)
        last = np.where(inside.any(1), w - 1 - inside[:, ::-1].argmax(1), w - 1)
        middle, half = (first + last) / 2, np.maximum((last - first) / 2, 1)
        across = np.clip((np.arange(w)[None] - middle[:, None]) / half[:, None], -1, 1)
        along = np.broadcast_to(np.arange(bottom - top, dtype=np.float32)[:, None], coverage.shape)
        return Shape(left, top, coverage, across.astype(np.float32), along)


def _catmull_rom(points: np.ndarray, steps: int = 6) -> np.ndarray:
    """[k,2] -> [k*steps,2]: a closed curve that goes through every point."""
    p0, p1 = np.roll(points, 1, 0), points
    p2, p3 = np.roll(points, -1, 0), np.roll(points, -2, 0)
    t = (np.arange(steps, dtype=np.float32) / steps)[None, :, None]
    p0, p1, p2, p3 = (p[:, None] for p in (p0, p1, p2, p3))
    curve = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    return (curve / 2).reshape(-1, 2)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """float32 [height,width], about -1..1: random values on a grid of `cells` along the longer side, interpolated."""
    longer = max(height, width)
    grid_h, grid_w = max(2, round(cells * height / longer)), max(2, round(cells * width / longer))
    grid = rng.uniform(-1, 1, (grid_h, grid_w)).astype(np.float32)
    return np.asarray(Image.fromarray(grid, mode="F").resize((width, height), Image.Resampling.BICUBIC))
