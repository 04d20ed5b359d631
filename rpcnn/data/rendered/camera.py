"""Camera and light. World: y up from the ground, z towards the camera, decimeters. Camera: x right, y up, z depth."""

from dataclasses import dataclass

import numpy as np

from .poses import turn, unit

FRAMINGS = ("head", "waist", "knee", "full", "far")


@dataclass
class Camera:
    """Looks at (0, center, 0) from `distance`, tilted down by `pitch` and turned about the view axis by `roll`.

    `focal` is in pixels.
    """

    focal: float
    distance: float
    center: float
    pitch: float
    roll: float

    def __post_init__(self):
        self.rotation = turn((0, 0, 1), self.roll) @ turn((1, 0, 0), self.pitch)

    def view(self, points: np.ndarray) -> np.ndarray:
        """World points float [N, 3] in camera space, float32."""
        seen = (points - np.array((0, self.center, 0))) @ self.rotation.T
        seen[:, 2] = self.distance - seen[:, 2]
        return np.ascontiguousarray(seen, np.float32)

    def direction(self, world) -> np.ndarray:
        """A direction in camera space."""
        turned = self.rotation @ np.asarray(world, float)
        return np.array((turned[0], turned[1], -turned[2]), np.float32)

    @property
    def ground_level(self) -> float:
        """dot(up, p) of the points p of the ground."""
        return float(-self.center - (self.rotation @ (0, 1, 0))[2] * self.distance)


def aim(rng: np.random.Generator, framing: str, size: float, tallest: float, height: int) -> Camera:
    """A camera for somebody `size` decimeters tall and the tallest person beside, in a picture of this height."""
    focal = height / (2 * np.tan(np.radians(rng.uniform(20, 62)) / 2))
    above = tallest + rng.uniform(0.1, 2.2)
    below = {
        "head": size - rng.uniform(3.2, 5.2),
        "waist": size * rng.uniform(0.4, 0.62),
        "knee": size * rng.uniform(0.2, 0.36),
        "full": -rng.uniform(0.2, 1.8),
        "far": -rng.uniform(2, 6),
    }[framing]
    if framing == "far":
        above += rng.uniform(2, 12)
    distance = max((above - below) * focal / height, 5.0)
    center = (above + below) / 2
    camera_height = center + rng.normal(0.5, 3.0) * min(1.5, distance / 20)
    if rng.random() < 0.08:  # from high above, as from a balcony
        camera_height += distance * rng.uniform(0.2, 0.6)
    pitch = float(np.arctan2(camera_height - center, distance))
    return Camera(float(focal), float(distance), float(center), pitch, float(rng.normal(0, 0.035)))


@dataclass
class Light:
    """Arguments of `_rendered.Canvas.render`, without the ground."""

    sun_direction: np.ndarray
    sun: np.ndarray
    fill_direction: np.ndarray
    fill: np.ndarray
    up: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    softness: float
    occlusion: float


def draw_light(rng: np.random.Generator, camera: Camera, above: np.ndarray, below: np.ndarray) -> Light:
    """Light for people in front of a backdrop whose upper and lower half have these mean colors, linear [3].

    Sunny, overcast, indoors with lamps, or a flash at the camera.
    """
    kind = rng.choice(("sunny", "overcast", "indoors", "flash"), p=(0.3, 0.27, 0.28, 0.15))
    ambient = {"sunny": rng.uniform(0.25, 0.5), "overcast": rng.uniform(0.75, 1.0), "indoors": rng.uniform(0.4, 0.75),
               "flash": rng.uniform(0.15, 0.4)}[kind]  # fmt: skip
    tint_above, tint_below = (color / (color.mean() + 1e-3) for color in (above, below))
    share = rng.uniform(0.2, 0.7)
    level = float(np.clip((above.mean() + below.mean()) / 0.44, 0.15, 2.0)) ** rng.uniform(0.2, 0.6)
    sky = ambient * (1 + share * (tint_above - 1)) * (1 + rng.normal(0, 0.04, 3))
    ground = ambient * rng.uniform(0.4, 0.8) * (1 + share * (tint_below - 1))
    sideways = rng.normal(0, 0.9)
    direction = unit((sideways, abs(rng.normal(0.8, 0.5)) + 0.1, rng.normal(0.5, 0.7)))
    warmth = rng.normal(0.05, 0.06) if kind == "sunny" else rng.normal(0.08, 0.12)
    color = np.array((1 + warmth, 1.0, 1 - warmth)).clip(0.5, 1.6)
    power = {"sunny": rng.uniform(0.9, 1.7), "overcast": rng.uniform(0, 0.25), "indoors": rng.uniform(0.3, 0.9),
             "flash": rng.uniform(0.0, 0.2)}[kind]  # fmt: skip
    softness = {"sunny": 0.06, "overcast": 1.5, "indoors": rng.uniform(0.2, 1.2), "flash": 0.8}[kind]
    fill_direction, fill = np.array((rng.normal(0, 0.1), 0.15, -1.0)), 0.0
    if kind == "flash":
        fill = rng.uniform(0.6, 1.1)
    elif rng.random() < 0.5:
        fill, fill_direction = rng.uniform(0.05, 0.4), camera.direction(unit((-sideways, rng.uniform(0, 1), 0.6)))
    return Light(
        sun_direction=camera.direction(direction),
        sun=level * power * color,
        fill_direction=fill_direction,
        fill=level * fill * (1 + rng.normal(0, 0.04, 3)),
        up=camera.direction((0, 1, 0)),
        sky=level * sky,
        ground=level * ground,
        softness=float(softness),
        occlusion=float(rng.uniform(0.4, 0.85)),
    )
