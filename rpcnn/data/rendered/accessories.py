"""Caps, beanies, brimmed hats, sunglasses and scarfs, made around the body rather than read from files."""

import numpy as np

from rpcnn import _rendered

from .bodies import Posed
from .fabrics import Fabrics, draw_color
from .layers import Layer, grid_triangles, sheet

HAT, SUNGLASSES, SCARF = 1, 4, 11


def plain(fabrics: Fabrics, color, **looks) -> _rendered.Material:
    """A material of one linear color."""
    return _rendered.Material(fabrics.plain, dyes=np.tile(np.asarray(color, np.float32), (4, 1)), mean=1.02, **looks)


def cap(rng, posed: Posed, fabrics: Fabrics) -> list[Layer]:
    """The skull, inflated: a beanie, a cap with a peak, or a hat with a brim all around."""
    body = posed.body
    head = float(body.at("head")[1])
    low = head + rng.uniform(0.1, 0.42)
    tilt = rng.uniform(-0.1, 0.1)
    skull = (body.labels == 13) & (body.centers[:, 1] > head - 0.45)
    points = posed.points + np.float32(rng.uniform(0.16, 0.34)) * body.mesh.normals(posed.points)
    clip = body.points[:, 1] - low - tilt * (1 - body.points[:, 2])
    dye = fabrics.draw_dye(rng, plain=0.75)
    material = _rendered.Material(
        fabrics.plain, mean=1.02, fold_slopes=fabrics.folds(rng), folds=rng.uniform(0, 0.25), fold_scale=2.0, **dye
    )
    labels = np.full(len(body.labels), HAT, np.uint8)
    layers = [Layer(body.mesh, points, labels, material, skull, clip.astype(np.float32), 0.5)]
    kind = rng.random()
    if kind < 0.35:
        return layers
    eye, rim = posed.joint("eye.L"), posed.rest[body.vertex_labels == 13]
    front, back, side = rim[:, 2].max() - 0.3, rim[:, 2].min() + 0.15, np.abs(rim[:, 0]).max()
    height = eye[1] + rng.uniform(0.45, 0.65)
    if kind < 0.75:  # a peak
        x = np.linspace(-1, 1, 9)
        behind = rng.random() < 0.12
        z, way = (back, -1) if behind else (front, 1)
        inner = np.c_[0.75 * x, np.full(9, height), z - way * 0.45 * x**2]
        outer = np.c_[
            0.7 * x, np.full(9, height - rng.uniform(0.05, 0.25)), z + way * (rng.uniform(0.55, 0.85) - 0.5 * x**2)
        ]
        points, triangles = np.r_[inner, outer], grid_triangles(2, 9)
    else:  # a brim
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        wide, droop, wave = rng.uniform(0.45, 1.2), rng.uniform(-0.15, 0.35), rng.uniform(0, 0.12)
        center = np.array((0, height, (front + back) / 2))
        ring = np.c_[np.sin(angle) * side, np.zeros(28), np.cos(angle) * (front - back) / 2]
        rows = [
            center
            + ring * (0.92 + share * wide / side)
            + np.c_[0 * angle, -droop * share**2 + wave * np.sin(2 * angle) * share, 0 * angle]
            for share in (0, 0.5, 1)
        ]
        points, triangles = np.concatenate(rows), grid_triangles(3, 28, closed=True)
    return [*layers, sheet(posed.carry("head", points), triangles, HAT, material, bias=0.05)]


def glasses(rng, posed: Posed, fabrics: Fabrics) -> list[Layer]:
    """Sunglasses: two lenses, a bridge and temples."""
    tone = np.array([rng.uniform(0.003, 0.03)] * 3) if rng.random() < 0.8 else draw_color(rng) * 0.3
    wide, high, square = rng.uniform(0.24, 0.33), rng.uniform(0.16, 0.25), rng.uniform(0.5, 1)
    points, triangles = [], []
    for sign, side in ((1, "L"), (-1, "R")):
        eye = posed.joint(f"eye.{side}")
        first = len(points)
        for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False):
            c, s = np.cos(angle), np.sin(angle)
            x, y = wide * np.sign(c) * abs(c) ** square, high * np.sign(s) * abs(s) ** square
            points.append(eye + np.array((x, y - 0.02, 0.33 - 0.1 * max(c * sign, 0))))
        triangles += [(first, first + k, first + k + 1) for k in range(1, 13)]
        bar = len(points)
        y, z, ear = eye[1] + 0.08, eye[2] + 0.33, eye[0] * 2.25
        points += [(0, y, z + 0.07), (0, y + 0.06, z + 0.07), (eye[0], y, z), (eye[0], y + 0.06, z)]
        points += [
            (eye[0] + sign * wide, y, z),
            (eye[0] + sign * wide, y + 0.06, z),
            (ear, y, z - 1.08),
            (ear, y + 0.06, z - 1.08),
        ]
        triangles += [(bar + k, bar + k + 1, bar + k + 2) for k in (0, 1, 4, 5)]
    material = plain(fabrics, tone, shine=rng.uniform(0.1, 0.6), gloss=60.0)
    return [sheet(posed.carry("head", np.array(points, float)), triangles, SUNGLASSES, material, bias=0.15)]


def scarf(rng, posed: Posed, fabrics: Fabrics) -> list[Layer]:
    """A roll around the neck, and often an end that hangs down in front."""
    base = posed.joint("neck01") * 0.6 + posed.joint("neck03") * 0.4
    around, thick = rng.uniform(0.6, 0.85), rng.uniform(0.22, 0.42)
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 28, endpoint=False), np.linspace(0, 2 * np.pi, 11), indexing="ij")
    u, v = u.T, v.T
    bumps = 1 + 0.14 * rng.normal(0, 1, u.shape)
    bumps[-1] = bumps[0]
    radius = around + thick * bumps * np.cos(v)
    points = (
        np.stack([np.sin(u) * radius, thick * 1.2 * bumps * np.sin(v) - 0.18 * np.cos(u), np.cos(u) * radius], -1)
        + base
    )
    uv = np.stack([u / 3.1, v / 6.3], -1).reshape(-1, 2)
    material = _rendered.Material(
        fabrics.plain,
        mean=1.02,
        fold_slopes=fabrics.folds(rng),
        folds=rng.uniform(0.2, 0.6),
        fold_scale=1.0,
        **fabrics.draw_dye(rng, plain=0.4),
    )
    layers = [
        sheet(
            posed.carry("neck01", points.reshape(-1, 3)), grid_triangles(11, 28, closed=True), SCARF, material, uv, 0.1
        )
    ]
    for _ in range(int(rng.integers(0, 3))):
        x, wide, long = rng.uniform(-0.6, 0.6), rng.uniform(0.3, 0.55), rng.uniform(1.2, 4)
        y = -np.linspace(0, long, 10)
        z = base[2] + around + 0.35 + 0.3 * np.minimum(1, -y / 2) + rng.normal(0, 0.03, 10)
        rows = np.stack(
            [
                np.stack([x + s * wide + 0.08 * y * x, base[1] + y, z + 0.06 * rng.normal(0, 1, 10)], -1)
                for s in (-1, 0, 1)
            ],
            1,
        )
        uv = np.stack(np.meshgrid((0.4, 0.5, 0.6), np.linspace(0, long / 6, 10)), -1).reshape(-1, 2)
        layers.append(
            sheet(posed.carry("spine01", rows.reshape(-1, 3)), grid_triangles(10, 3), SCARF, material, uv, 0.15)
        )
    return layers
