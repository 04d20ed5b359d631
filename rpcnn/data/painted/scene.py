"""Painted people: scenes of one to six clothed, overlapping people with exact maps of their parts.

A scene depends on its seed only. The maps are made by the same strokes as the image, so they are exact to the pixel;
left and right are the person's own. All 20 CIHP classes occur. `write_cihp` writes scenes in the official CIHP layout.
"""

from functools import partial
from pathlib import Path

import numpy as np

from rpcnn.data.cihp_layout import write_scenes
from rpcnn.data.sample import Sample, make_sample
from rpcnn.labelmaps.people import NumberedPersonMaps

from .backdrop import paint_backdrop, paint_occluder
from .canvas import Canvas, smooth_noise
from .people import Person, paint_person

GENERATOR_VERSION = 3
"""Increased when the same seed gives another image, so that older sets are painted again."""


def paint_maps(
    seed, height: int = 256, width: int = 320, difficulty: float = 0.5, people: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint a scene.

    Args:
        seed: an integer or a tuple of integers.
        height, width: in pixels, at least 32.
        difficulty: in 0..1; adds clutter, occluders, crowds, turned backs, accessories and poor light.
        people: number of people to place; None draws 1 to 6.

    Returns:
        The image uint8 [H, W, 3] RGB, the label map uint8 [H, W] with CIHP's labels, and the map of person numbers
        uint8 [H, W]: 1, 2, … for the people with a visible pixel, 0 without a person.

    Raises:
        ValueError: a side is below 32 pixels or difficulty is outside 0..1.
    """
    if min(height, width) < 32:
        raise ValueError(f"paint_maps: height and width must be at least 32 pixels, got {height} x {width}")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"paint_maps: difficulty must be in 0..1, got {difficulty}")
    rng = np.random.default_rng(seed)
    canvas = Canvas(height, width)
    light = rng.uniform(-1, 1)
    horizon = height * rng.uniform(0.35, 0.62)
    place = paint_backdrop(canvas, rng, horizon, difficulty)
    for person in _place_people(rng, height, width, horizon, difficulty, people):
        _shadow(canvas, person, light, place)
        paint_person(canvas, rng, person, light, accessories=min(0.3 + 1.4 * difficulty, 1))
    if rng.random() < 0.35 * difficulty:
        paint_occluder(canvas, rng, place)
    image = _photograph(canvas.image, rng, light, difficulty)
    present = np.flatnonzero(np.bincount(canvas.numbers.ravel(), minlength=256)[1:]) + 1
    renumber = np.zeros(256, np.uint8)
    renumber[present] = np.arange(1, len(present) + 1)
    return image, canvas.label_map, renumber[canvas.numbers]


def _place_people(rng, height, width, horizon, difficulty, people) -> list[Person]:
    """Place people from far to near: the nearer, the lower their feet and the taller they are.

    From difficulty 0.5 on there are one to six people at any distance, and two in five are turned aside or away.
    Towards difficulty 0 there are one to three people, who are near, fully visible and face the viewer.
    """
    calm = max(1 - 2 * difficulty, 0)
    odds = (1 - calm) * np.array((0.2, 0.26, 0.22, 0.16, 0.1, 0.06)) + calm * np.array((0.4, 0.35, 0.25, 0, 0, 0))
    count = people if people is not None else int(rng.choice(6, p=odds)) + 1
    short = min(height, width)
    close_up = rng.random() < 0.25 * (1 - calm)
    tall = rng.uniform(1.0, 1.5) if close_up else rng.uniform(0.5 + 0.25 * calm, 0.92)
    spread = 0.12 + 0.2 * rng.random()
    placed = []
    for _ in range(count):
        size = short * tall * (1 + spread * rng.uniform(-1, 0.4))
        best, best_gap = 0.0, -1.0
        for _ in range(8):  # the least crowded of a few places
            x = rng.uniform(0.04, 0.96) * width
            gap = min((abs(x - other.x) / (other.height + size) for other in placed), default=1.0)
            if gap > best_gap:
                best, best_gap = x, gap
            if gap > 0.24 - 0.12 * difficulty:
                break
        feet = height * 0.98 if not close_up else height * (0.98 + (tall - 0.9) * 0.75)
        feet -= (short * tall * (1 + 0.4 * spread) - size) * 0.55
        feet += height * rng.uniform(-0.1, 0.06)
        facing = rng.random()
        yaw = (
            rng.normal(0, 0.45) if facing < 0.6 + 0.4 * calm else rng.choice((-1, 1)) * (np.pi / 2 + rng.normal(0, 0.3))
        )
        if facing > 0.82 + 0.18 * calm:
            yaw = np.pi + rng.normal(0, 0.4)
        placed.append(Person(best, float(feet), float(size), float(yaw), 0))
    placed.sort(key=lambda person: person.y + 0.2 * person.height)
    for number, person in enumerate(placed, 1):
        person.number = number
    return placed


def _shadow(canvas: Canvas, person: Person, light: float, place: str):
    shape = canvas.ellipse(person.x - 0.1 * light * person.height, person.y, 0.2 * person.height, 0.035 * person.height)
    if shape is not None:
        shape.coverage = shape.coverage * np.float32(0.35 if place != "studio" else 0.2)
        h, w = shape.coverage.shape
        ground = canvas.numbers[shape.y : shape.y + h, shape.x : shape.x + w] == 0
        shape.coverage *= ground
        canvas.stamp(shape, (0.08, 0.08, 0.1))


def _photograph(image: np.ndarray, rng: np.random.Generator, light: float, difficulty: float) -> np.ndarray:
    """Add light from one side, a color cast, exposure and sensor noise; float [H, W, 3] in 0..1 -> uint8."""
    height, width = image.shape[:2]
    strength = 0.08 + 0.2 * difficulty * rng.random()
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    down = np.linspace(1, -1, height, dtype=np.float32)[:, None, None]
    image = image * (1 + strength * light * across + 0.4 * strength * down)
    if rng.random() < 0.5 * difficulty:  # blotches of shade, as under trees
        image = image * (1 + 0.18 * np.clip(2 * smooth_noise(rng, height, width, 5), -1, 0.3)[..., None])
    warmth = rng.normal(0, 0.03 + 0.05 * difficulty)
    image = image * np.array((1 + warmth, 1, 1 - warmth), np.float32)
    image = image * rng.uniform(1 - 0.35 * difficulty, 1 + 0.12 * difficulty)
    grain = rng.normal(0, 1, image.shape[:2]).astype(np.float32)[..., None]
    image = image + grain * (0.006 + 0.022 * difficulty * rng.random())
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def paint_scene(
    seed, height: int = 256, width: int = 320, difficulty: float = 0.5, people: int | None = None
) -> Sample:
    """Paint a scene and return it as a sample, as the CIHP reader would load it.

    Args and Raises: see :func:`paint_maps`.
    """
    image, label_map, numbers = paint_maps(seed, height, width, difficulty, people)
    return make_sample(f"painted-{seed}", image, NumberedPersonMaps(label_map, numbers, int(numbers.max())))


def write_cihp(
    root,
    train: int = 400,
    val: int = 60,
    size: tuple[int, int] = (192, 256),
    seed: int = 0,
    difficulty: float = 0.5,
    workers: int | None = None,
) -> Path:
    """Paint scenes and write them in the official CIHP layout; see :func:`rpcnn.data.cihp_layout.write_scenes`.

    Args:
        root: the folder.
        train, val: number of scenes per split.
        size: range of the short side in pixels.
        seed: seed of all scenes.
        difficulty: see :func:`paint_maps`.
        workers: number of processes.

    Returns:
        The folder.

    Raises:
        ValueError: `root` holds something that this function did not write.
    """
    return write_scenes(
        root,
        partial(paint_maps, difficulty=difficulty),
        mark="painted.json",
        settings={"generator": GENERATOR_VERSION, "difficulty": difficulty},
        train=train,
        val=val,
        size=size,
        seed=seed,
        workers=workers,
    )
