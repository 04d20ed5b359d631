"""A layer of what somebody wears: a mesh on the posed body, its labels and what it looks like."""

from dataclasses import dataclass

import numpy as np

from rpcnn import _rendered


@dataclass
class Layer:
    """A mesh in the person's own frame, drawn as `_rendered.Canvas.draw` does.

    Attributes:
        mesh: the triangles.
        points: float32 [N, 3], decimeters.
        labels: uint8 [T], CIHP's.
        material: what it looks like.
        keep: bool [T]: triangles that are not hidden by other clothes; None keeps all.
        clip: float32 [N]: cut where the value, interpolated, is negative; None cuts nothing.
        bias: decimeters by which it counts as nearer than it is, so that it covers what lies under it.
        owned: whether it belongs to the person; things belong to nobody and hide the people behind.
    """

    mesh: _rendered.Mesh
    points: np.ndarray
    labels: np.ndarray
    material: _rendered.Material
    keep: np.ndarray | None = None
    clip: np.ndarray | None = None
    bias: float = 0.0
    owned: bool = True


def sheet(points, triangles, label: int, material: _rendered.Material, uv=None, bias: float = 0.0) -> Layer:
    """A layer from points [N, 3] and triangles [T, 3] with one label; uv [N, 2] or none."""
    triangles = np.asarray(triangles, np.int32)
    if uv is None:
        uv, uv_triangles = np.zeros((1, 2), np.float32), np.zeros_like(triangles)
    else:
        uv_triangles = triangles
    mesh = _rendered.Mesh(len(points), triangles, uv_triangles, np.asarray(uv, np.float32))
    return Layer(mesh, np.asarray(points, np.float32), np.full(len(triangles), label, np.uint8), material, bias=bias)


def grid_triangles(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Triangles [T, 3] of a grid of points [rows · columns]; closed joins the last column to the first."""
    number = np.arange(rows * columns).reshape(rows, columns)
    a = number[:-1] if closed else number[:-1, :-1]
    b = np.roll(number, -1, 1)[:-1] if closed else number[:-1, 1:]
    c = number[1:] if closed else number[1:, :-1]
    d = np.roll(number, -1, 1)[1:] if closed else number[1:, 1:]
    return np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)]).astype(
        np.int32
    )
