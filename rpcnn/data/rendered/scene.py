"""Rendered scenes: one to seven clothed people with exact maps of their parts. A scene depends on its seed only."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from rpcnn import _rendered
from rpcnn.data.sample import Sample, make_sample
from rpcnn.labelmaps.people import NumberedPersonMaps

from . import props
from .assets import check_folder, read_motions
from .backdrop import Backdrops, texture
from .bodies import Body, Posed, draw_person
from .camera import aim, draw_light
from .fabrics import Fabrics, smooth_noise
from .groups import draw_framing, draw_group, draw_places
from .layers import Layer
from .outfits import Dresser
from .photo import blur, photograph
from .poses import Poser, turn
from .rooms import draw_room
from .wardrobe import Wardrobe

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
        if min(height, width) < 32 or max(height, width) > 4096:
            raise ValueError(f"Renderer.maps: height and width must lie in 32..4096 pixels, got {height} x {width}")
        seed = tuple(seed) if isinstance(seed, tuple | list) else (seed,)
        for again in range(4):  # somebody must be seen well
            image, label_map, numbers = self._scene(np.random.default_rng((*seed, again)), height, width)
            if np.bincount(numbers.ravel(), minlength=2)[1:].max() > 0.04 * height * width:
                break
        return image, label_map, numbers

    def sample(self, seed, height: int = 288, width: int = 320, id: str | None = None) -> Sample:
        """Render a scene as a sample, as the CIHP reader would load it. Args and Raises: see :meth:`maps`."""
        image, label_map, numbers = self.maps(seed, height, width)
        people = NumberedPersonMaps(label_map, numbers, int(numbers.max()))
        return make_sample(id or f"rendered-{seed}", image, people)

    def _person(self, rng, stance: str, around: str, outfit: int | None) -> tuple[Posed, list[Layer]]:
        """Somebody and their layers. Those with one number `outfit` wear the same, as far as their bodies allow."""
        person = draw_person(rng)
        rest = self.body.shape(rng, person)
        posed = self.body.move(rest, self.poser.draw(rng, self.body.joints(rest), stance, around))
        layers = self.dresser.dress(rng if outfit is None else np.random.default_rng(outfit), person, posed)
        if stance == "sit" and rng.random() < 0.85:
            layers += props.seat(rng, posed, self.fabrics)
        if rng.random() < 0.22:
            layers += props.held(rng, posed, self.fabrics)
        if rng.random() < 0.07:
            layers += props.bag(rng, posed, self.fabrics)
        return posed, layers

    def _height(self, posed: Posed) -> float:
        """Decimeters from the ground to the top of the head, with hair."""
        head = posed.points[self.body.vertex_labels == 13, 1].max()
        return float(head - posed.points[self.body.vertices, 1].min()) + 0.4

    def _scene(self, rng: np.random.Generator, height: int, width: int):
        group = draw_group(rng)
        framing = draw_framing(rng, group.stances[0])
        outfit = int(rng.integers(2**31)) if group.alike else None
        people = [self._person(rng, stance, group.around(k), outfit) for k, stance in enumerate(group.stances)]
        heights = [self._height(posed) for posed, _ in people]
        everybody = rng.random() < (0.5 if framing in ("head", "waist") else 0.85)
        tallest = max(heights) if everybody else heights[0]
        camera = aim(rng, framing, heights[0], tallest, height)
        places = draw_places(rng, camera, width, group)
        if rng.random() < (0.22 if self.backdrops.paths else 0.5):
            backdrop = draw_room(rng, camera, height, width, self.fabrics)
        else:
            backdrop = self.backdrops.draw(rng, height, width)
        light = draw_light(rng, camera, backdrop[: height // 2].mean((0, 1)), backdrop[height // 2 :].mean((0, 1)))

        canvas = _rendered.Canvas(height, width, camera.focal)
        if framing != "far" and rng.random() < 0.09:
            wide = width / 2 / camera.focal * camera.distance
            for layer in props.table(rng, rng.uniform(2.2, 4.5), wide, self.fabrics):
                canvas.draw(layer.mesh, camera.view(layer.points), layer.labels, 0, layer.material)
        for number, ((x, z, yaw), (posed, layers)) in enumerate(zip(places, people, strict=True), 1):
            spin = turn((0, 1, 0), yaw).T.astype(np.float32)
            place = np.array((x, -posed.points[self.body.vertices, 1].min() + 0.12, z), np.float32)
            for layer in layers:
                canvas.draw(
                    layer.mesh,
                    camera.view(layer.points @ spin + place),
                    layer.labels,
                    number if layer.owned else 0,
                    layer.material,
                    layer.keep,
                    layer.clip,
                    layer.bias,
                )
        ground = camera.ground_level if framing in ("knee", "full", "far") else None
        color, coverage, _, label_map, numbers, sun, sky = canvas.render(**asdict(light), ground_level=ground)
        if rng.random() < 0.45:  # the lens is focused on the people
            backdrop = blur(backdrop, float(rng.uniform(0.4, 1.5) if rng.random() < 0.6 else rng.uniform(1.5, 5)))
        if ground is not None:
            share = light.sun.mean() / (light.sun.mean() + light.sky.mean() + 1e-6)
            backdrop = backdrop * (1 - (1 - sun) * share * 0.9 - (1 - sky) * (1 - share) * 0.7)[..., None]
        image = backdrop * (1 - coverage[..., None]) + color
        for _ in range(int(rng.choice((0, 1, 2), p=(0.7, 0.22, 0.08)))):
            _occlude(rng, image, label_map, numbers)
        return (photograph(rng, image), *_renumber(label_map, numbers))


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
