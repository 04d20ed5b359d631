"""The background of painted scenes: places, and clutter with the shapes and colors of people and their clothes."""

import numpy as np

from .canvas import Canvas, smooth_noise
from .look import CLOTH, HAIR_TONES, SKIN_TONES, Cloth, pick_cloth

_SKIES = np.array(
    [[(0.45, 0.68, 0.9), (0.85, 0.92, 0.97)], [(0.62, 0.7, 0.76), (0.86, 0.88, 0.88)],
     [(0.35, 0.42, 0.66), (0.97, 0.74, 0.6)], [(0.3, 0.58, 0.82), (0.98, 0.93, 0.82)],
     [(0.16, 0.2, 0.34), (0.45, 0.42, 0.55)]], np.float32)  # fmt: skip
_GROUNDS = {
    "park": [(0.45, 0.62, 0.3), (0.36, 0.52, 0.28), (0.6, 0.66, 0.36)],
    "street": [(0.55, 0.55, 0.56), (0.42, 0.43, 0.46), (0.68, 0.64, 0.58)],
    "beach": [(0.9, 0.82, 0.62), (0.84, 0.74, 0.56)],
    "snow": [(0.92, 0.94, 0.97), (0.82, 0.87, 0.93)],
}
PLACES = ("park", "street", "beach", "snow", "room", "studio")


def _fill(canvas: Canvas, top: float, bottom: float, upper, lower):
    """Fill the canvas between two heights with a vertical gradient."""
    top, bottom = max(int(top), 0), min(int(bottom), canvas.height)
    if bottom > top:
        t = np.linspace(0, 1, bottom - top, dtype=np.float32)[:, None, None]
        canvas.image[top:bottom] = (1 - t) * np.asarray(upper, np.float32) + t * np.asarray(lower, np.float32)


def _roughen(canvas: Canvas, rng: np.random.Generator, top: float, amount: float):
    top = min(max(int(top), 0), canvas.height - 2)
    h, w = canvas.height - top, canvas.width
    noise = smooth_noise(rng, h, w, 9) + 0.7 * smooth_noise(rng, h, w, 40)
    canvas.image[top:] *= 1 + amount * noise[..., None]


def paint_backdrop(canvas: Canvas, rng: np.random.Generator, horizon: float, difficulty: float) -> str:
    """Paint a place over the whole canvas, with its horizon at `horizon` pixels from the top; returns its name."""
    place = PLACES[rng.integers(len(PLACES))]
    w = canvas.width
    if place in _GROUNDS:
        sky = _SKIES[rng.integers(len(_SKIES))] * rng.uniform(0.92, 1.04)
        _fill(canvas, 0, canvas.height, sky[0], sky[1])
        if place == "street":
            _buildings(canvas, rng, horizon)
        elif place == "beach":
            _fill(canvas, horizon * 0.72, horizon + 1, (0.2, 0.5, 0.62), (0.42, 0.72, 0.76))
        else:
            _clouds(canvas, rng, horizon)
            _hills(canvas, rng, horizon, place)
        tones = _GROUNDS[place]
        ground = np.array(tones[rng.integers(len(tones))]) * rng.uniform(0.9, 1.05)
        _fill(canvas, horizon, canvas.height, ground * 0.85, ground * 1.08)
        _roughen(canvas, rng, horizon, 0.07)
        if place in ("park", "snow"):
            for _ in range(rng.integers(1, 5)):
                _tree(canvas, rng, rng.uniform(0, w), horizon + rng.uniform(-2, 8), rng.uniform(0.25, 0.6), place)
        if place == "street" and rng.random() < 0.6:
            stripe = (0.86, 0.85, 0.8)
            for k in range(7):
                x = (k - 0.5 + rng.uniform(-0.05, 0.05)) * w / 6
                y = (horizon + canvas.height) / 2
                shape = canvas.outline(
                    [(x, y), (x + w / 14, y), (x + w / 18, y + 6), (x - w / 30, y + 6)], smooth=False
                )
                canvas.stamp(shape, stripe)
    elif place == "room":
        _room(canvas, rng, horizon)
    else:
        a, b = CLOTH[rng.integers(len(CLOTH), size=2)]
        pale = rng.uniform(0.3, 0.75)
        _fill(canvas, 0, canvas.height, a * (1 - pale) + pale, b * (1 - pale) * 0.8 + pale)
        noise = smooth_noise(rng, canvas.height, w, int(rng.integers(3, 9)))
        canvas.image *= 1 + 0.12 * noise[..., None]
    for _ in range(rng.poisson(1 + 5 * difficulty)):
        _clutter(canvas, rng, horizon)
    return place


def _clouds(canvas, rng, horizon):
    for _ in range(rng.integers(0, 4)):
        x, y, size = rng.uniform(0, canvas.width), rng.uniform(0, horizon * 0.6), rng.uniform(0.04, 0.09)
        for _ in range(4):
            r = size * canvas.width
            shape = canvas.ellipse(x + rng.uniform(-1.4, 1.4) * r, y + rng.uniform(-0.2, 0.2) * r, r, 0.45 * r)
            if shape is not None:
                shape.coverage = shape.coverage * np.float32(0.55)
                canvas.stamp(shape, (0.99, 0.99, 0.99))


def _hills(canvas, rng, horizon, place):
    for k in range(int(rng.integers(1, 4))):
        xs = np.linspace(-0.1, 1.1, 8) * canvas.width
        ys = horizon - (3 - k) * horizon * 0.1 * rng.uniform(0.2, 1.3, 8)
        tone = np.array((0.62, 0.7, 0.82) if place == "snow" else (0.35, 0.55, 0.4)) * rng.uniform(0.8, 1.15)
        points = [*zip(xs, ys, strict=True), (canvas.width * 1.1, horizon + 9), (-0.1 * canvas.width, horizon + 9)]
        canvas.stamp(canvas.outline(points), tone)


def _buildings(canvas, rng, horizon):
    x = -rng.uniform(0, 0.1) * canvas.width
    while x < canvas.width:
        width, top = canvas.width * rng.uniform(0.12, 0.3), horizon * rng.uniform(-0.1, 0.6)
        wall = CLOTH[rng.integers(len(CLOTH))] * 0.45 + rng.uniform(0.25, 0.48)
        box = [(x, top), (x + width, top), (x + width, horizon + 2), (x, horizon + 2)]
        canvas.stamp(canvas.outline(box, smooth=False), wall)
        pane = np.array((0.3, 0.38, 0.46)) * rng.uniform(0.6, 1.7)
        step = canvas.height * rng.uniform(0.07, 0.11)
        for wy in np.arange(top + step * 0.4, horizon - step * 0.6, step * 1.25):
            for wx in np.arange(x + step * 0.3, x + width - step * 0.7, step):
                lit = pane if rng.random() < 0.85 else np.array((0.95, 0.85, 0.55))
                pane_box = [
                    (wx, wy),
                    (wx + step * 0.5, wy),
                    (wx + step * 0.5, wy + step * 0.75),
                    (wx, wy + step * 0.75),
                ]
                canvas.stamp(canvas.outline(pane_box, smooth=False), lit)
        x += width


def _tree(canvas, rng, x, foot, size, place):
    h = size * canvas.height
    canvas.stamp(canvas.tube([(x, foot), (x, foot - h * 0.6)], [h * 0.05, h * 0.03]), (0.36, 0.26, 0.19))
    green = np.array((0.25, 0.45, 0.25)) * rng.uniform(0.7, 1.3)
    if place == "snow" or rng.random() < 0.3:
        for k in range(3):
            y, half = foot - h * (0.25 + 0.25 * k), h * (0.26 - 0.06 * k)
            canvas.stamp(
                canvas.outline([(x - half, y), (x, y - h * 0.4), (x + half, y)], smooth=False), green * (1 + k * 0.1)
            )
    else:
        for _ in range(6):
            blob = canvas.ellipse(x + rng.uniform(-0.22, 0.22) * h, foot - h * rng.uniform(0.55, 0.95),
                                  h * rng.uniform(0.13, 0.24), h * rng.uniform(0.12, 0.2))  # fmt: skip
            canvas.stamp(blob, green * rng.uniform(0.85, 1.2))


def _room(canvas, rng, horizon):
    w = canvas.width
    wall = CLOTH[rng.integers(len(CLOTH))] * 0.3 + rng.uniform(0.4, 0.68)
    _fill(canvas, 0, canvas.height, wall, wall * 0.92)
    if rng.random() < 0.5:  # wallpaper
        pitch = w / rng.integers(8, 22)
        canvas.image *= 1 + 0.05 * np.sign(np.sin(np.arange(w, dtype=np.float32) * 2 * np.pi / pitch))[None, :, None]
    wood = np.array((0.62, 0.44, 0.3)) * rng.uniform(0.6, 1.25)
    _fill(canvas, horizon, canvas.height, wood * 0.9, wood * 1.1)
    _fill(canvas, horizon - 4, horizon, (0.93, 0.92, 0.9), (0.85, 0.84, 0.82))
    _roughen(canvas, rng, horizon, 0.05)
    for _ in range(rng.integers(0, 4)):  # pictures and windows
        x, y = rng.uniform(0, w), rng.uniform(0.05, 0.4) * horizon
        pw, ph = w * rng.uniform(0.08, 0.2), horizon * rng.uniform(0.2, 0.45)
        for grow, tone in ((3, rng.uniform(0.1, 0.9, 3) * 0.6), (0, rng.uniform(0.3, 1, 3))):
            box = [
                (x - grow, y - grow),
                (x + pw + grow, y - grow),
                (x + pw + grow, y + ph + grow),
                (x - grow, y + ph + grow),
            ]
            canvas.stamp(canvas.outline(box, smooth=False), tone)


def _clutter(canvas, rng, horizon):
    """Paint an object, labeled as background, that has a color, a cloth or a shape like people."""
    w, h = canvas.width, canvas.height
    x, foot, size = rng.uniform(0, w), rng.uniform(horizon, h), rng.uniform(0.06, 0.2) * h
    light = rng.uniform(-1, 1)
    cloth = pick_cloth(rng, size * 0.15)
    if rng.random() < 0.3:
        tones = SKIN_TONES if rng.random() < 0.5 else HAIR_TONES
        cloth = Cloth(tones[rng.integers(len(tones))], cloth.second)

    def put(shape, fabric=cloth):
        if shape is not None:
            canvas.stamp(shape, fabric.paint(shape, light))

    kind = rng.integers(7)
    if kind == 0:  # post with a round lamp
        put(canvas.tube([(x, foot), (x, foot - 2.5 * size)], [size * 0.1, size * 0.07]))
        put(canvas.ellipse(x, foot - 2.6 * size, size * 0.22, size * 0.25))
    elif kind == 1:  # towels on a line
        y = horizon * rng.uniform(0.25, 0.8)
        canvas.stamp(canvas.tube([(0, y), (w, y * rng.uniform(0.9, 1.1))], [0.8, 0.8]), (0.3, 0.3, 0.3))
        for k in range(rng.integers(1, 4)):
            xk = x + k * size * 1.2
            box = [
                (xk, y),
                (xk + size * 0.9, y),
                (xk + size * 0.85, y + size * 1.3),
                (xk + size * 0.05, y + size * 1.3),
            ]
            put(canvas.outline(box, smooth=False), pick_cloth(rng, size * 0.15))
    elif kind == 2:  # balloons
        for _ in range(rng.integers(1, 4)):
            bx, by = x + rng.uniform(-1, 1) * size, rng.uniform(0.1, 0.7) * horizon
            canvas.stamp(canvas.tube([(bx, by), (x, by + 2.4 * size)], [0.6, 0.6]), (0.35, 0.35, 0.35))
            put(canvas.ellipse(bx, by, size * 0.35, size * 0.42), pick_cloth(rng, size * 0.15, patterned=False))
    elif kind == 3:  # cone
        put(canvas.outline([(x - size * 0.4, foot), (x - size * 0.06, foot - size), (x + size * 0.06, foot - size),
                            (x + size * 0.4, foot)], smooth=False))  # fmt: skip
    elif kind == 4:  # ball, boulder
        put(canvas.ellipse(x, foot - size * 0.3, size * 0.4, size * 0.38))
    elif kind == 5:  # bench or crate
        box = [(x, foot - size * 0.5), (x + size * 1.4, foot - size * 0.5), (x + size * 1.4, foot), (x, foot)]
        put(canvas.outline(box, smooth=False))
    else:  # parasol or flag
        put(canvas.tube([(x, foot), (x, foot - 2.6 * size)], [size * 0.04, size * 0.04]))
        y = foot - 2.6 * size
        if rng.random() < 0.5:
            put(canvas.outline([(x - size, y + 0.4 * size), (x, y - 0.2 * size), (x + size, y + 0.4 * size)]))
        else:
            put(
                canvas.outline(
                    [(x, y), (x + size, y + 0.1 * size), (x + 0.95 * size, y + 0.7 * size), (x, y + 0.6 * size)]
                )
            )


def paint_occluder(canvas: Canvas, rng: np.random.Generator, place: str) -> None:
    """Paint an object, labeled as background, in front of people."""
    w, h = canvas.width, canvas.height
    x, size = rng.uniform(0.05, 0.95) * w, rng.uniform(0.12, 0.24) * h
    light = rng.uniform(-1, 1)
    if place in ("park", "beach", "snow"):  # bush
        green = np.array((0.24, 0.42, 0.22)) * rng.uniform(0.7, 1.2)
        for _ in range(7):
            blob = canvas.ellipse(x + rng.uniform(-0.8, 0.8) * size, h - rng.uniform(0, 0.6) * size,
                                  size * rng.uniform(0.25, 0.4), size * rng.uniform(0.2, 0.35))  # fmt: skip
            canvas.stamp(blob, green * rng.uniform(0.85, 1.2), 0, 0)
    else:  # bollard or table
        cloth = pick_cloth(rng, size * 0.2, patterned=False)
        if rng.random() < 0.5:
            shape = canvas.tube([(x, h + size), (x, h - size)], [size * 0.22, size * 0.16])
        else:
            top, foot = size, size * 1.05  # half widths
            corners = [(x - top, h - 0.7 * size), (x + top, h - 0.7 * size), (x + foot, h + 2), (x - foot, h + 2)]
            shape = canvas.outline(corners, smooth=False)
        if shape is not None:
            canvas.stamp(shape, cloth.paint(shape, light), 0, 0)
