"""Rendered scenes: one to seven clothed people with exact maps of their parts. A scene depends on its seed only."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from rpcnn import _rendered
from rpcnn.data.sample import Sample, make_sample
from rpcnn.labelmaps.people import NumberedPersonMaps

from .assets import check_folder, read_motions
from .backdrop import Backdrops, texture
from .bodies import Body, Posed, draw_person
from .camera import FRAMINGS, aim, draw_light
from .fabrics import Fabrics, smooth_noise
from .layers import Layer
from .outfits import Dresser
from .photo import blur, photograph
from .poses import Poser, turn
from .wardrobe import Wardrobe

GENERATOR_VERSION = 1
"""Increased when the same seed gives another image, so that older sets are rendered again."""
_SMALLEST = 40  # pixels; who is seen less is nobody


class Renderer:
    """Renders scenes from a folder of assets.

    Args:
        assets: folder of MakeHuman assets; see `assets.NEEDED`.
        backgrounds: folder with pictures without people; None for painted backdrops only.

    Raises:
        AssetFault: an asset is missing or damaged.
        ValueError: there are no pictures in `backgrounds`.
    """

    def __init__(self, assets: str | Path, backgrounds: str | Path | None = None):
        folder = check_folder(Path(assets))
        self.body = Body(folder)
        self.wardrobe = Wardrobe.open(folder, self.body)
        self.poser = Poser(self.body, read_motions(folder))
        self.fabrics = Fabrics()
        self.dresser = Dresser(self.body, self.wardrobe, self.fabrics)
        self.backdrops = Backdrops(Path(backgrounds) if backgrounds else None)

    def maps(self, seed, height: int = 288, width: int = 320) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Render a scene.

        Args:
            seed: an integer or a tuple of integers.
            height, width: in pixels, 32 to 4096.

        Returns:
            The image uint8 [H, W, 3] RGB, the label map uint8 [H, W] with CIHP's labels, and the map of person numbers
            uint8 [H, W]: 1, 2, … for the people with at least 40 visible pixels, 0 without a person.

        Raises:
            ValueError: a side is outside 32..4096.
        """
        if not (32 <= min(height, width) and max(height, width) <= 4096):
            raise ValueError(f"Renderer.maps: height and width must lie in 32..4096 pixels, got {height} x {width}")
        seed = tuple(seed) if isinstance(seed, tuple | list) else (seed,)
        for again in range(4):  # somebody must be seen well
            image, label_map, numbers = self._scene(np.random.default_rng((*seed, again)), height, width)
            if np.bincount(numbers.ravel(), minlength=2)[1:].max() > 0.015 * height * width:
                break
        return image, label_map, numbers

    def sample(self, seed, height: int = 288, width: int = 320, id: str | None = None) -> Sample:
        """Render a scene as a sample, as the CIHP reader would load it. Args and Raises: see :meth:`maps`."""
        image, label_map, numbers = self.maps(seed, height, width)
        people = NumberedPersonMaps(label_map, numbers, int(numbers.max()))
        return make_sample(id or f"rendered-{seed}", image, people)

    def _person(self, rng, stance: str) -> tuple[Posed, list[Layer]]:
        person = draw_person(rng)
        rest = self.body.shape(rng, person)
        posed = self.body.move(rest, self.poser.draw(rng, self.body.joints(rest), stance))
        return posed, self.dresser.dress(rng, person, posed)

    def _scene(self, rng: np.random.Generator, height: int, width: int):
        count = int(rng.choice((1, 2, 3, 4, 5, 6, 7), p=(0.16, 0.3, 0.22, 0.15, 0.09, 0.05, 0.03)))
        framing = FRAMINGS[rng.choice(5, p=(0.2, 0.36, 0.13, 0.22, 0.09))]
        place = rng.choice(("standing", "sitting", "moving"), p=(0.68, 0.17, 0.15))
        odds = {"standing": (0.66, 0.16, 0.0, 0.03, 0.0, 0.02, 0.01, 0.01, 0.11), "sitting": (0.1, 0.03, 0, 0.68, 0.04, 0.04, 0.08, 0.01, 0.02),
                "moving": (0.05, 0.3, 0.2, 0, 0.1, 0.05, 0, 0, 0.3)}[place]  # fmt: skip
        stances = ("stand", "walk", "run", "sit", "ride", "squat", "floor", "lie", "motion")
        people = [self._person(rng, stances[rng.choice(len(stances), p=odds)]) for _ in range(count)]

        lead = people[0][0]
        floor = lead.points[self.body.vertices, 1].min() - 0.12
        top = lead.points[self.body.vertex_labels == 13][:, 1].max() + 0.25 - floor
        camera = aim(rng, framing, top, top, height)
        backdrop = self.backdrops.draw(rng, height, width)
        light = draw_light(rng, camera, backdrop[: height // 2].mean((0, 1)), backdrop[height // 2 :].mean((0, 1)))

        canvas = _rendered.Canvas(height, width, camera.focal)
        for number, (place_of, yaw, (posed, layers)) in enumerate(self._placed(rng, camera, width, people), 1):
            spin = turn((0, 1, 0), yaw).T.astype(np.float32)
            lowest = posed.points[self.body.vertices, 1].min() - 0.12
            for layer in layers:
                world = layer.points @ spin + np.array((place_of[0], -lowest, place_of[1]), np.float32)
                canvas.draw(
                    layer.mesh,
                    camera.view(world),
                    layer.labels,
                    number,
                    layer.material,
                    layer.keep,
                    layer.clip,
                    layer.bias,
                )
        grounded = framing in ("full", "far", "knee")
        color, coverage, _, label_map, numbers, sun, sky = canvas.render(
            **asdict(light), ground_level=camera.ground_level if grounded else None
        )
        if rng.random() < 0.55:
            backdrop = blur(rng, backdrop, float(rng.uniform(0.4, 1.5) if rng.random() < 0.6 else rng.uniform(1.5, 5)))
        if grounded:
            share = light.sun.mean() / (light.sun.mean() + light.sky.mean() + 1e-6)
            backdrop = backdrop * (1 - (1 - sun) * share * 0.9 - (1 - sky) * (1 - share) * 0.7)[..., None]
        image = backdrop * (1 - coverage[..., None]) + color
        for _ in range(int(rng.choice((0, 1, 2), p=(0.62, 0.27, 0.11)))):
            _occlude(rng, image, label_map, numbers)
        return (photograph(rng, image), *_renumber(label_map, numbers))

    def _placed(self, rng, camera, width: int, people):
        """(x, z) and yaw of every person: side by side, in rows, or scattered."""
        count = len(people)
        half = width / 2 / camera.focal * camera.distance
        gap = rng.uniform(2.2, 6.5)
        if count > 1 and gap * (count - 1) > 2.1 * half and rng.random() < 0.8:
            gap = max(2 * half * rng.uniform(0.8, 1.05) / (count - 1), 2.0)
        ranks = rng.permutation(count) - (count - 1) / 2
        spread = rng.choice((0.8, 3.0, 12.0), p=(0.5, 0.3, 0.2)) * min(1, camera.distance / 15)
        shift = rng.normal(0, 0.12) * half
        common = rng.normal(0, 0.5) if rng.random() < 0.7 else rng.uniform(-np.pi, np.pi)
        for k, person in enumerate(people):
            x, away = shift + ranks[k] * gap + rng.normal(0, 0.5), 0.0
            if k:
                away = rng.normal(0, 1) * spread
                away = abs(away) if spread > 5 else max(away, -0.2 * camera.distance)
                x *= (camera.distance + away) / camera.distance
            kind = rng.random()
            yaw = (
                common + rng.normal(0, 0.35)
                if kind < 0.6
                else (rng.normal(0, 0.5) if kind < 0.82 else rng.uniform(-np.pi, np.pi))
            )
            yield (x, -away), yaw, person


def _occlude(rng, image: np.ndarray, label_map: np.ndarray, numbers: np.ndarray) -> None:
    """Put something in front: the edge of a table, a post, a thing. It belongs to nobody."""
    height, width = label_map.shape
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    kind = rng.random()
    if kind < 0.5:
        inside = y > height * rng.uniform(0.72, 0.97) + rng.normal(0, 0.06) * (x - width / 2)
        if rng.random() < 0.4:
            inside = inside & (np.abs(x - rng.uniform(0, width)) < width * rng.uniform(0.15, 0.5))
    elif kind < 0.65:
        inside = np.abs(x - rng.uniform(0, width) + rng.normal(0, 0.05) * y) < rng.uniform(2, 0.05 * width)
    else:
        cx, cy = rng.uniform(0, width), rng.uniform(0.3, 1) * height
        dx, dy = (x - cx) / (rng.uniform(0.03, 0.14) * width), (y - cy) / (rng.uniform(0.03, 0.16) * height)
        square = (np.abs(dx) < 1) & (np.abs(dy) < 1)
        inside = square if rng.random() < 0.5 else dx * dx + dy * dy + 0.4 * smooth_noise(rng, height, width, 20) < 1
    surface = texture(rng, height, width)
    if rng.random() < 0.6:
        surface = surface.mean((0, 1)) * np.ones((height, width, 1), np.float32)
    shade = 0.8 + 0.2 * smooth_noise(rng, height, width, 4) + 0.1 * smooth_noise(rng, height, width, 25)
    inside = np.broadcast_to(inside, label_map.shape)
    image[inside] = (surface * np.clip(shade, 0.1, 2)[..., None])[inside]
    label_map[inside] = 0
    numbers[inside] = 0


def _renumber(label_map: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the people who are seen from 1; the rest become background."""
    seen = np.bincount(numbers.ravel(), minlength=256)
    new = np.zeros(256, np.uint8)
    visible = [k for k in range(1, 256) if seen[k] >= _SMALLEST]
    new[visible] = np.arange(1, len(visible) + 1)
    numbers = new[numbers]
    return np.where(numbers > 0, label_map, 0).astype(np.uint8), numbers
