"""Rooms and streets in 3-D as backdrops: a floor, walls, windows, pictures, shelves, furniture, curtains and plants."""

import numpy as np

from rpcnn import _rendered

from .camera import Camera, Light
from .fabrics import Fabrics, draw_color
from .layers import Layer, grid_triangles, sheet
from .poses import turn, unit
from .props import box, boxes, material, turned


def draw_room(rng: np.random.Generator, camera: Camera, height: int, width: int, fabrics: Fabrics) -> np.ndarray:
    """The backdrop float32 [height, width, 3], linear rgb, of a room or a street that the camera looks into."""
    half = width / 2 / camera.focal * camera.distance
    back = -np.exp(rng.uniform(np.log(4), np.log(60)))
    street = rng.random() < 0.3
    wide = half * rng.uniform(1.0, 2.5) + rng.uniform(2, 25)
    layers = _street(rng, wide, back, fabrics) if street else _room(rng, wide, back, camera, fabrics)
    canvas = _rendered.Canvas(height, width, camera.focal)
    for layer in layers:
        canvas.draw(layer.mesh, camera.view(layer.points), layer.labels, 0, layer.material)
    lamp = unit((rng.normal(0, 0.8), rng.uniform(0.3, 1.2), rng.uniform(0.2, 1)))
    sky = rng.uniform(0.35, 0.8) * (1 + rng.normal(0, 0.05, 3))
    light = Light(
        sun_direction=camera.direction(lamp), sun=rng.uniform(0.2, 0.9) * (1 + rng.normal(0, 0.06, 3)),
        fill_direction=np.array((0, 0, -1.0)), fill=np.full(3, rng.uniform(0, 0.3)), up=camera.direction((0, 1, 0)),
        sky=sky, ground=sky * rng.uniform(0.4, 0.9), softness=0.4, occlusion=float(rng.uniform(0.3, 0.8)),
    )  # fmt: skip
    color, coverage, *_ = canvas.render(**vars(light))
    beyond = draw_color(rng) if not street else np.array((0.5, 0.65, 0.9)) * rng.uniform(0.6, 1.6)
    return (color + (1 - coverage[..., None]) * beyond).astype(np.float32)


def plane(origin, right, up, looks: _rendered.Material, cell: float = 3.0, scale: float = 6.0) -> Layer:
    """A flat rectangle from a corner along two vectors, in cells: one that is partly behind the camera is lost."""
    origin, right, up = (np.asarray(v, float) for v in (origin, right, up))
    counts = [int(np.clip(np.linalg.norm(v) / cell, 1, 60)) + 1 for v in (up, right)]
    s, t = np.meshgrid(np.linspace(0, 1, counts[1]), np.linspace(0, 1, counts[0]))
    points = origin + s[..., None] * right + t[..., None] * up
    uv = np.stack([s * np.linalg.norm(right) / scale, t * np.linalg.norm(up) / scale], -1)
    return sheet(points.reshape(-1, 3), grid_triangles(*counts), 0, looks, uv.reshape(-1, 2))


def _surface(rng, fabrics: Fabrics, plain: float) -> _rendered.Material:
    dye = fabrics.draw_dye(rng, plain)
    if rng.random() < 0.6:  # walls and floors are paler than clothes
        dye["dyes"] = 0.35 * dye["dyes"] + 0.65 * dye["dyes"].mean() + rng.uniform(0, 0.25)
    return _rendered.Material(
        fabrics.plain, mean=1.02, fold_slopes=fabrics.folds(rng), folds=float(rng.uniform(0, 0.15)),
        shine=float(rng.uniform(0, 0.1)), gloss=float(rng.uniform(5, 40)), **dye,
    )  # fmt: skip


def _bright(rng, fabrics: Fabrics) -> _rendered.Material:
    """What shines: a window, a lamp, a screen."""
    color = rng.uniform(0.8, 5) * (1 + rng.normal(0, 0.15, 3)).clip(0.3)
    return _rendered.Material(fabrics.plain, mean=1.02, dyes=np.tile(color.astype(np.float32), (4, 1)))


def _room(rng, wide: float, back: float, camera: Camera, fabrics: Fabrics) -> list[Layer]:
    high, front = rng.uniform(24, 42), camera.distance + 10
    floor, wall = _surface(rng, fabrics, 0.4), _surface(rng, fabrics, 0.75)
    layers = [
        plane((-wide, 0, front), (2 * wide, 0, 0), (0, 0, back - front), floor),
        plane((-wide, 0, back), (2 * wide, 0, 0), (0, high, 0), wall),
        plane((-wide, 0, front), (0, 0, back - front), (0, high, 0), wall),
        plane((wide, 0, back), (0, 0, front - back), (0, high, 0), wall if rng.random() < 0.6 else floor),
        plane((-wide, high, back), (2 * wide, 0, 0), (0, 0, front - back), _surface(rng, fabrics, 0.9)),
    ]
    for _ in range(int(rng.integers(3, 13))):  # on the back wall
        x, y = rng.uniform(-wide, wide), rng.uniform(8, high - 6)
        a, b = rng.uniform(1, 6), rng.uniform(1, 6)
        kind = rng.random()
        if kind < 0.35:  # a picture or a poster
            layers.append(box((x, y, back + 0.1), (a + 0.3, b + 0.3, 0.12), material(rng, fabrics)))
            layers.append(box((x, y, back + 0.2), (a, b, 0.12), _print(rng, fabrics)))
        elif kind < 0.6:
            layers += _window(rng, x, rng.uniform(9, 16), back, fabrics)
        elif kind < 0.85:
            layers += _shelf(rng, x, back, fabrics)
        else:  # a door, a cupboard
            layers.append(box((x, 10, back + 0.3), (4.5, 10, 0.4), material(rng, fabrics)))
    for _ in range(int(rng.integers(0, 7))):
        layers += _thing(rng, wide, back, fabrics)
    return layers


def _street(rng, wide: float, back: float, fabrics: Fabrics) -> list[Layer]:
    far = back - rng.uniform(10, 80)
    layers = [plane((-4 * wide, 0, 60), (8 * wide, 0, 0), (0, 0, far - 62), _surface(rng, fabrics, 0.7), cell=5)]
    x = -3 * wide
    while x < 3 * wide:  # houses
        half, high = rng.uniform(8, 40), rng.uniform(25, 160)
        looks, glass = _surface(rng, fabrics, 0.6), material(rng, fabrics)
        z = far - rng.uniform(0, 15)
        layers.append(box((x + half, high / 2, z - 10), (half, high / 2, 10), looks))
        step, size = rng.uniform(6, 14), rng.uniform(0.25, 0.42)
        columns = np.arange(x + step / 2, x + 2 * half - step / 3, step)
        rows = np.arange(step * 0.9, min(high, 90) - step / 3, step * rng.uniform(0.9, 1.4))
        places = np.array([(c, r, z) for c in columns for r in rows])
        shining = rng.random(len(places)) < 0.08
        for chosen, kind in ((shining, _bright(rng, fabrics)), (~shining, glass)):
            if chosen.any():
                halves = np.tile((step * size, step * 0.28, 0.15), (int(chosen.sum()), 1))
                layers.append(boxes(places[chosen], halves, kind))
        x += 2 * half + (rng.uniform(0, 12) if rng.random() < 0.4 else 0)
    for _ in range(int(rng.integers(1, 7))):
        layers += _thing(rng, 2 * wide, far / 2, fabrics, outside=True)
    return layers


def _print(rng, fabrics: Fabrics) -> _rendered.Material:
    dyes = np.stack([draw_color(rng) for _ in range(4)])
    at = np.array([[0.5, 0, rng.random()], [0, 0.5, rng.random()]], np.float32)
    return _rendered.Material(fabrics.plain, mean=1.02, dyes=dyes, pattern=fabrics.pattern(rng), pattern_to_uv=at)


def _window(rng, x: float, y: float, back: float, fabrics: Fabrics) -> list[Layer]:
    a, b = rng.uniform(3, 8), rng.uniform(4, 8)
    frame = material(rng, fabrics)
    layers = [plane((x - a, y - b, back + 0.1), (2 * a, 0, 0), (0, 2 * b, 0), _bright(rng, fabrics))]
    bars = [((x + a * s, y, back + 0.2), (0.2, b, 0.15)) for s in np.linspace(-1, 1, int(rng.integers(2, 5)))]
    bars += [((x, y + s * b, back + 0.2), (a, 0.3, 0.2)) for s in (-1, 0, 1)]
    layers.append(boxes(*zip(*bars, strict=True), frame))
    if rng.random() < 0.5:
        looks = _surface(rng, fabrics, 0.5)
        for side in (-1, 1):
            layers.append(_curtain(rng, x + side * a, y - b - 3, y + b + 1, rng.uniform(1.5, 4), back + 0.8, looks))
    return layers


def _curtain(rng, x: float, low: float, top: float, half: float, z: float, looks: _rendered.Material) -> Layer:
    s, t = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(0, 1, 6))
    wave = rng.uniform(0.2, 0.6) * np.sin(s * rng.uniform(8, 22) + 0.5 * t)
    points = np.stack([x + half * s, low + (top - low) * t, z + wave], -1)
    return sheet(points.reshape(-1, 3), grid_triangles(6, 40), 0, looks, np.stack([s, t], -1).reshape(-1, 2))


def _shelf(rng, x: float, back: float, fabrics: Fabrics) -> list[Layer]:
    half, top, deep = rng.uniform(3, 8), rng.uniform(9, 22), rng.uniform(1.2, 2)
    looks, rows = material(rng, fabrics), int(rng.integers(2, 6))
    frame = [((x + s * half, top / 2, back + deep), (0.15, top / 2, deep)) for s in (-1, 1)]
    frame += [((x, top * row / rows, back + deep), (half, 0.15, deep)) for row in range(rows + 1)]
    books: list[list] = [[] for _ in range(6)]
    for row in range(rows):  # books and boxes
        at = x - half + 0.3
        while at < x + half - 0.8:
            thick, tall = rng.uniform(0.12, 0.9), rng.uniform(0.4, 0.85) * top / rows / 2
            if rng.random() < 0.85:
                place = at + thick, top * row / rows + tall, back + deep
                books[rng.integers(6)].append((place, (thick, tall, deep * 0.8)))
            at += 2 * thick + (rng.uniform(0, 1.5) if rng.random() < 0.1 else 0.03)
    layers = [boxes(*zip(*frame, strict=True), looks)]
    layers += [boxes(*zip(*kind, strict=True), material(rng, fabrics)) for kind in books if kind]
    return layers


def _thing(rng, wide: float, back: float, fabrics: Fabrics, outside: bool = False) -> list[Layer]:
    """Furniture, a plant, a post, or a parked block, somewhere behind the people."""
    x, z = rng.uniform(-wide, wide), rng.uniform(back, min(-3.5, back + 25))
    looks, kind = material(rng, fabrics), rng.random()
    if kind < 0.3:
        return _plant(rng, x, z, rng.uniform(5, 40 if outside else 18), fabrics)
    if kind < 0.5:
        high = rng.uniform(10, 45)
        post = turned((x, high / 2, z), (0, 1, 0), (0.5, 0.3, 0.3, 0.3), high, looks)
        lamp = turned((x, high, z), (0, 1, 0), (1.6, 1.4, 0.8, 0), 2.2, _bright(rng, fabrics))
        return [post, lamp] if rng.random() < 0.6 else [post]
    a, b, c = rng.uniform(2, 9), rng.uniform(2, 6), rng.uniform(2, 4)
    layers = [box((x, b / 2, z), (a, b / 2, c), looks, turn((0, 1, 0), rng.normal(0, 0.2)))]
    if kind < 0.75:  # a sofa
        layers.append(box((x, b, z - c), (a, b * 0.9, 0.6), looks))
        layers += [box((x + s * a, b * 0.7, z), (0.6, b * 0.6, c), looks) for s in (-1, 1)]
    return layers


def _plant(rng, x: float, z: float, high: float, fabrics: Fabrics) -> list[Layer]:
    count, spread = int(rng.integers(150, 600)), high * rng.uniform(0.12, 0.3)
    center = np.array((x, high * 0.65, z)) + rng.normal(0, 1, (count, 3)) * (spread, high * 0.17, spread)
    size = high * rng.uniform(0.012, 0.035)
    points = (center[:, None] + rng.normal(0, size, (count, 3, 3))).reshape(-1, 3)
    green = np.array((0.08, 0.2, 0.04)) * rng.uniform(0.3, 2.2) * (1 + rng.normal(0, 0.2, 3))
    dyes = np.clip(green * rng.uniform(0.6, 1.5, (4, 1)), 0.003, 1).astype(np.float32)
    at = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    leaves = _rendered.Material(fabrics.plain, mean=1.02, dyes=dyes, pattern=fabrics.pattern(rng), pattern_to_uv=at)
    uv = rng.uniform(0, 1, (3 * count, 2))
    return [
        sheet(points, np.arange(3 * count).reshape(-1, 3), 0, leaves, uv),
        turned(
            (x, high * 0.2, z), (0, 1, 0), (0.05 * high, 0.04 * high, 0.03 * high), high * 0.4, material(rng, fabrics)
        ),
    ]
