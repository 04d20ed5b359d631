"""Things beside people that belong to nobody: seats, tables, and what hands hold."""

import numpy as np

from rpcnn import _rendered

from .bodies import Posed
from .fabrics import Fabrics
from .layers import Layer, grid_triangles, sheet
from .poses import cross, turn, unit


def _cube() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners [24, 3] of a cube, four for each face; the axes along the face [24, 2]; triangles [12, 3]."""
    corners, axes = [], []
    for axis in range(3):
        b, c = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1, 1):
            for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.zeros(3)
                corner[axis], corner[b], corner[c] = sign, s, t
                corners.append(corner)
                axes.append((b, c))
    triangles = np.concatenate([[[4 * f, 4 * f + 1, 4 * f + 2], [4 * f, 4 * f + 2, 4 * f + 3]] for f in range(6)])
    return np.array(corners), np.array(axes), triangles


_CORNERS, _AXES, _TRIANGLES = _cube()


def material(rng, fabrics: Fabrics) -> _rendered.Material:
    """Wood, plastic, metal or paper, by chance."""
    dye = fabrics.draw_dye(rng, plain=0.7)
    return _rendered.Material(
        fabrics.plain, mean=1.02, shine=float(rng.uniform(0, 0.3)), gloss=float(rng.uniform(10, 60)), **dye
    )


def box(center, half, looks: _rendered.Material, rotation=None) -> Layer:
    """A box with half its sides [3]; its edges are sharp."""
    return boxes([center], [half], looks, rotation)


def boxes(centers, halves, looks: _rendered.Material, rotation=None) -> Layer:
    """Boxes of one material: centers and half sides [K, 3], and one rotation [3, 3] of each about its center."""
    centers, halves = np.asarray(centers, float), np.asarray(halves, float)
    points = _CORNERS * halves[:, None]
    uv = np.take_along_axis(points, np.broadcast_to(_AXES, (len(points), *_AXES.shape)), 2) / 4
    if rotation is not None:
        points = points @ np.asarray(rotation).T
    points = (points + centers[:, None]).reshape(-1, 3)
    triangles = (_TRIANGLES + 24 * np.arange(len(centers))[:, None, None]).reshape(-1, 3)
    return _unowned(sheet(points, triangles, 0, looks, uv.reshape(-1, 2)))


def turned(center, axis, radii, length: float, looks: _rendered.Material) -> Layer:
    """A body of revolution about an axis: radii [K] from one end to the other, closed at the ends if they end in 0."""
    across = between_axis(axis)
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    ring = np.stack([np.cos(angle), np.zeros(14), np.sin(angle)], 1)
    rows = [ring * r + (0, y, 0) for r, y in zip(radii, np.linspace(-length / 2, length / 2, len(radii)), strict=True)]
    points = np.concatenate(rows) @ across.T + center
    uv = np.stack([np.tile(angle / 3, len(radii)), np.repeat(np.linspace(0, 1, len(radii)), 14)], 1)
    return _unowned(sheet(points, grid_triangles(len(radii), 14, closed=True), 0, looks, uv))


def between_axis(axis) -> np.ndarray:
    """A rotation [3, 3] that takes y to an axis."""
    y = unit(axis)
    x = unit(cross(y, (0.3, 0.1, 1)))
    return np.stack([x, y, cross(x, y)], 1)


def _unowned(layer: Layer) -> Layer:
    layer.owned = False
    return layer


def seat(rng, posed: Posed, fabrics: Fabrics) -> list[Layer]:
    """A stool, bench, chair or armchair under somebody who sits, down to the ground."""
    hips = np.stack([posed.carry(f"upperleg01.{side}", posed.joint(f"upperleg01.{side}")[None])[0] for side in "LR"])
    middle, ground = hips.mean(0), float(posed.points[posed.body.vertices, 1].min())
    top = middle[1] - 0.95
    looks = material(rng, fabrics)
    wide, deep = rng.uniform(1.8, 3.2), rng.uniform(1.6, 2.3)
    kind = rng.random()
    if kind < 0.15:
        wide = rng.uniform(5, 14)  # a bench
    thick = (top - ground) / 2 if kind > 0.75 else rng.uniform(0.15, 0.4)
    parts = [box((middle[0], top - thick, middle[2] + 0.4), (wide, thick, deep), looks)]
    if kind <= 0.75:
        for x in (-1, 1):
            for z in (-1, 1):
                place = middle[0] + x * (wide - 0.2), (top + ground) / 2, middle[2] + 0.4 + z * (deep - 0.2)
                parts.append(box(place, (0.12, (top - ground) / 2, 0.12), looks))
    if rng.random() < 0.7:
        high = rng.uniform(1.5, 3.5)
        parts.append(box((middle[0], top + high, middle[2] + 0.4 - deep), (wide, high, 0.2), looks))
    if rng.random() < 0.25:
        for x in (-1, 1):
            parts.append(box((middle[0] + x * wide, top + 1, middle[2] + 0.4), (0.3, 1, deep), looks))
    return parts


def held(rng, posed: Posed, fabrics: Fabrics) -> list[Layer]:
    """Something in a hand: a cup, bottle, stick, phone, book, ball, tray or bag."""
    side = rng.choice(("L", "R"))
    name = f"finger3-2.{side}"
    if name not in posed.body.number:
        return []
    hand = posed.carry(name, posed.joint(name)[None])[0]
    elbow, wrist = (posed.carry(f"{b}.{side}", posed.joint(f"{b}.{side}")[None])[0] for b in ("lowerarm01", "wrist"))
    arm = unit(wrist - elbow)
    looks, kind = material(rng, fabrics), rng.random()
    if kind < 0.2:  # a cup or a bottle
        r, long = rng.uniform(0.25, 0.45), rng.uniform(0.8, 2.6)
        neck = (0, r, r, r, 0.35 * r, 0.35 * r, 0) if long > 1.6 else (0, 0.8 * r, r, r, 0.9 * r)
        return [
            turned(hand + np.array((0, 0.2 * long, 0)), (rng.normal(0, 0.2), 1, rng.normal(0, 0.2)), neck, long, looks)
        ]
    if kind < 0.34:  # a stick, a microphone, an umbrella
        long = np.exp(rng.uniform(np.log(1), np.log(9)))
        axis = unit(np.array((0, 1, 0)) + rng.normal(0, 0.5, 3) + 0.5 * arm)
        return [
            turned(
                hand + axis * long * rng.uniform(-0.3, 0.4),
                axis,
                (0, 0.12, 0.12, 0.12, rng.uniform(0.12, 0.3), 0),
                long,
                looks,
            )
        ]
    if kind < 0.5:  # a phone or a camera
        return [
            box(
                hand + 0.1 * arm,
                (0.35, 0.7, 0.08 + 0.3 * (rng.random() < 0.3)),
                looks,
                turn(rng.normal(0, 1, 3), rng.normal(0, 0.5)),
            )
        ]
    if kind < 0.72:  # a book, papers, a box, a tray
        half = rng.uniform(0.7, 1.8), rng.uniform(0.7, 1.8), rng.uniform(0.03, 0.7)
        return [box(hand + unit(hand - elbow) * 0.4, half, looks, turn((1, 0.3, 0.2), rng.uniform(-1.2, 0.3)))]
    if kind < 0.82:  # a ball, a balloon
        r = rng.uniform(0.4, 1.4)
        t = np.linspace(0, np.pi, 9)
        return [turned(hand + arm * r, (0, 1, 0.2), r * np.sin(t), 2 * r, looks)]
    wide, high = rng.uniform(0.8, 1.9), rng.uniform(0.8, 2.2)  # a bag
    bag = box(
        hand - (0, high + rng.uniform(0.6, 1.6), 0),
        (wide, high, rng.uniform(0.25, 0.6)),
        looks,
        turn((0, 1, 0), rng.uniform(0, 3)),
    )
    return [bag, box(hand - (0, 0.8, 0), (0.06, 0.9, 0.06), looks)]


def bag(rng, posed: Posed, fabrics: Fabrics) -> list[Layer]:
    """A backpack's two straps with the pack behind, or a strap across the trunk with a bag at the hip."""
    body, looks = posed.body, material(rng, fabrics)
    trunk = np.isin(body.labels, (10,))
    x, y, z = body.points.T
    shoulder, hip = body.at("upperarm01.L"), body.at("upperleg01.L")
    points = posed.points + np.float32(rng.uniform(0.25, 0.4)) * body.mesh.normals(posed.points)
    half, sign = rng.uniform(0.1, 0.32), rng.choice((-1, 1))
    if rng.random() < 0.5:
        clip = half - np.abs(np.abs(x) - 0.68 * shoulder[0])
        clip = np.minimum(clip, y - hip[1] - 2.2)
        center = np.array((0, hip[1] + 3.2, z[body.vertices].min() - 0.5))
        size = rng.uniform(1.1, 1.6), rng.uniform(1.5, 2.3), rng.uniform(0.5, 0.9)
        carrier = "spine01"
    else:
        top, low = sign * 0.6 * shoulder[0], -sign * 1.5
        line = top + (low - top) * (shoulder[1] + 0.3 - y) / (shoulder[1] + 0.3 - hip[1])
        clip = half - np.abs(x - line)
        center = np.array((-sign * 2.0, hip[1] - rng.uniform(0, 1.2), rng.uniform(-0.3, 0.8)))
        size = rng.uniform(0.3, 0.6), rng.uniform(0.7, 1.4), rng.uniform(0.7, 1.4)
        carrier = "root"
    strap = Layer(body.mesh, points, np.zeros(len(body.labels), np.uint8), looks, trunk, clip.astype(np.float32), 0.3)
    pack = box(center, size, looks)
    pack.points = posed.carry(carrier, pack.points)
    return [_unowned(strap), pack]


def table(rng, distance: float, wide: float, fabrics: Fabrics) -> list[Layer]:
    """A table or counter in front of people, in the world: `distance` in front of the middle of the scene."""
    looks, top = material(rng, fabrics), rng.uniform(6.5, 10.5)
    deep, half = rng.uniform(1.5, 4), wide * rng.uniform(0.3, 1.2)
    center = rng.normal(0, 0.3) * wide
    thick = rng.uniform(0.15, 0.4) if rng.random() < 0.5 else top / 2
    parts = [box((center, top - thick, distance + deep), (half, thick, deep), looks)]
    for _ in range(int(rng.integers(0, 5))):
        x, z = center + rng.uniform(-0.9, 0.9) * half, distance + deep + rng.uniform(-0.8, 0.8) * deep
        r, high = rng.uniform(0.2, 0.8), rng.uniform(0.3, 2.5)
        things = material(rng, fabrics)
        if rng.random() < 0.5:
            parts.append(turned((x, top + high / 2, z), (0, 1, 0), (0.6 * r, r, r, 0.8 * r, 0), high, things))
        else:
            parts.append(box((x, top + high / 2, z), (r, high / 2, r), things, turn((0, 1, 0), rng.uniform(0, 3))))
    return parts
