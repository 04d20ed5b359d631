"""Cloth that hangs from the waist around both legs: skirts, gowns, and the lower part of coats and long shirts."""

import numpy as np

from rpcnn import _rendered

from .bodies import Body, Posed
from .layers import grid_triangles

_ROWS, _COLUMNS = 26, 72


class Drapery:
    """A tube around the base body's hips and legs, from the waist to the feet, bound to the body.

    Attributes:
        waist, low: heights of its upper and lower end, at rest.
        heights: float32 [N] of its points, at rest.
        front: float32 [N]: how far in front (positive) or behind they are, at rest.
        sideways: float32 [N]: x at rest.
    """

    def __init__(self, body: Body):
        hip, ankle = (float(body.at(bone)[1]) for bone in ("upperleg01.L", "foot.L"))
        self.waist, self.low = hip + 1.35, ankle - 0.2
        own = body.points[body.vertices]
        arm = np.isin(body.vertex_labels[body.vertices], (14, 15))
        numbers, own = body.vertices[~arm], own[~arm]
        angle = np.linspace(0, 2 * np.pi, _COLUMNS, endpoint=False)
        way = np.stack([np.sin(angle), np.zeros(_COLUMNS), np.cos(angle)], 1)
        rows = []
        for y in np.linspace(self.waist, self.low, _ROWS):
            away = np.abs(own[:, 1] - y)
            near = own[away <= max(0.35, np.sort(away)[min(12, len(away) - 1)])]
            center = np.array((0, y, (near[:, 2].max() + near[:, 2].min()) / 2))
            radius = ((near - center) @ way.T).max(0)
            rows.append(center + way * radius[:, None])
        points = np.array(rows)
        for _ in range(3):  # cloth does not go into every hollow
            points[1:-1] = 0.25 * points[:-2] + 0.5 * points[1:-1] + 0.25 * points[2:]
        points = points.reshape(-1, 3)
        self.way = np.tile(way, (_ROWS, 1))
        self.angle = np.tile(angle, _ROWS)
        self.heights, self.sideways = (points[:, axis].astype(np.float32) for axis in (1, 0))
        self.front = self.way[:, 2].astype(np.float32)
        u, v = self.angle / np.pi, (self.heights - self.low) / 5
        self.triangles = grid_triangles(_ROWS, _COLUMNS, closed=True)
        seam = np.concatenate([u, [2.0] * _ROWS])  # the last column meets the first at u = 2
        uv = np.stack([seam, np.concatenate([v, v[::_COLUMNS]])], 1).astype(np.float32)
        uv_triangles = self.triangles.copy()
        column = self.triangles % _COLUMNS
        wraps = (column.max(1) == _COLUMNS - 1)[:, None] & (column == 0)
        uv_triangles[wraps] = _ROWS * _COLUMNS + self.triangles[wraps] // _COLUMNS
        self.mesh = _rendered.Mesh(len(points), self.triangles, uv_triangles, uv)

        x = own[:, 0]
        legs = own[:, 1] < hip - 0.6
        sides = [np.flatnonzero(legs & (x > 0.15)), np.flatnonzero(legs & (x < -0.15))]
        trunk = np.flatnonzero((own[:, 1] > hip - 0.8) & (own[:, 1] < self.waist + 0.4))
        bound = np.stack([numbers[part[_nearest(points, own[part])]] for part in (*sides, trunk)], 1)
        left = _smooth((points[:, 0] + 0.9) / 1.8)
        high = _smooth((points[:, 1] - (hip - 1.5)) / 2.0)
        weights = np.stack([(1 - high) * left, (1 - high) * (1 - left), high], 1)
        self.body_vertices = np.ascontiguousarray(bound, np.int32)
        self.weights = np.ascontiguousarray(weights, np.float32)
        self.offsets = points - (weights[..., None] * body.points[bound]).sum(1)

    def fit(self, rng: np.random.Generator, posed: Posed, loose: float, flare: float, folds: float) -> np.ndarray:
        """Its points float32 [N, 3] on a posed body.

        Args:
            loose: decimeters between cloth and body.
            flare: decimeters that it stands out farther at the feet.
            folds: depth of its folds at the feet in decimeters.
        """
        down = (self.waist - self.heights) / (self.waist - self.low)
        count = rng.integers(5, 17)
        wave = np.sin(count * self.angle + rng.uniform(0, 6) + 0.8 * np.sin(2 * self.angle + rng.uniform(0, 6)))
        wave += 0.5 * np.sin((count + 3) * self.angle + rng.uniform(0, 6))
        out = loose + flare * down + folds * wave * down**1.3
        grown = np.linalg.norm(posed.joint("foot.L") - posed.joint("upperleg01.L")) / _LEG
        offsets = (self.offsets * grown + self.way * out[:, None]).astype(np.float32)
        return _rendered.fit(self.body_vertices, self.weights, offsets, posed.rest, posed.blended)


_LEG = 8.0  # decimeters from hip to ankle of the base body


def _smooth(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _nearest(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each point [N, 3] the number of the nearest of `among` [M, 3]; height counts double."""
    scale = np.array((1, 2, 1))
    a, b = points * scale, among * scale
    squares = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return squares.argmin(1)
