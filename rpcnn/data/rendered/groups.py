"""Groups: how many people, what they do, and where they stand. Decimeters; z is towards the camera."""

from dataclasses import dataclass

import numpy as np

from .camera import FRAMINGS, Camera

STANCES = ("stand", "walk", "run", "sit", "ride", "squat", "floor", "lie", "motion")

# People per image and framings are near those of CIHP's training images.
_COUNTS = (0.08, 0.36, 0.22, 0.17, 0.09, 0.05, 0.03)
_FRAMINGS = (0.25, 0.32, 0.12, 0.21, 0.1)
_PLACES = {
    "standing": (0.66, 0.16, 0.0, 0.03, 0.0, 0.02, 0.01, 0.01, 0.11),
    "sitting": (0.1, 0.03, 0.0, 0.68, 0.04, 0.04, 0.08, 0.01, 0.02),
    "moving": (0.05, 0.3, 0.2, 0.0, 0.1, 0.05, 0.0, 0.0, 0.3),
}


@dataclass
class Group:
    """The people of a scene; the first one is framed.

    Attributes:
        stances: what each does.
        ranks: each one's place from left to right in the picture, 0 in the middle.
        close: whether they stand arm in arm and look the same way.
        alike: whether they wear the same, as a team does.
    """

    stances: list[str]
    ranks: np.ndarray
    close: bool
    alike: bool

    def around(self, k: int) -> str:
        """The arms that person k lays around a neighbor: "", "L", "R" or "LR"."""
        if not self.close or self.stances[k] not in ("stand", "sit"):
            return ""
        left, right = (
            self.ranks[k] < self.ranks.max(),
            self.ranks[k] > self.ranks.min(),
        )  # left is to the picture's right
        return "L" * bool(left) + "R" * bool(right)


def draw_group(rng: np.random.Generator) -> Group:
    """Draw how many people there are, what they do and how they belong together."""
    count = int(rng.choice(len(_COUNTS), p=_COUNTS)) + 1
    odds = _PLACES[rng.choice(tuple(_PLACES), p=(0.68, 0.19, 0.13))]
    stances = [STANCES[rng.choice(len(STANCES), p=odds)] for _ in range(count)]
    ranks = rng.permutation(count) - (count - 1) / 2
    return Group(stances, ranks, count > 1 and rng.random() < 0.17, rng.random() < 0.08)


def draw_framing(rng: np.random.Generator, stance: str) -> str:
    """How the camera frames somebody who does this."""
    if stance in ("lie", "floor"):
        return "full"
    return FRAMINGS[rng.choice(len(FRAMINGS), p=_FRAMINGS)]


def draw_places(rng: np.random.Generator, camera: Camera, width: int, group: Group) -> list[tuple[float, float, float]]:
    """(x, z, yaw) of every person: side by side, in rows, or scattered; nobody stands inside another."""
    count, ranks = len(group.stances), group.ranks
    half = width / 2 / camera.focal * camera.distance
    gap = rng.uniform(2.2, 6.0)
    if count > 1 and gap * (count - 1) > 2.0 * half and rng.random() < 0.85:
        gap = max(2 * half * rng.uniform(0.75, 1.0) / (count - 1), 1.6)
    spread = rng.choice((0.8, 3.0, 12.0), p=(0.5, 0.3, 0.2)) * min(1, camera.distance / 15)
    shift = rng.normal(0, 0.12) * half
    common = rng.normal(0, 0.5) if rng.random() < 0.88 else rng.uniform(-np.pi, np.pi)
    places: list[tuple[float, float, float]] = []
    if group.close:
        common, gap = rng.normal(0, 0.3), rng.uniform(2.7, 3.4)
        for rank in ranks:
            away = rng.normal(0, 0.3) + 0.12 * rank**2
            places.append((shift + rank * gap, -away, common - 0.12 * rank + rng.normal(0, 0.12)))
        return places
    for k in range(count):
        x, away = shift + ranks[k] * gap + rng.normal(0, 0.4), 0.0
        if k:
            away = rng.normal(0, 1) * spread
            away = abs(away) if spread > 5 else max(away, -0.2 * camera.distance)
            x *= (camera.distance + away) / camera.distance
            for _ in range(6):
                if all(((x - a) / 2.7) ** 2 + ((away + b) / 2.0) ** 2 > 1 for a, b, _ in places):
                    break
                away += rng.uniform(0.6, 1.4)
        kind = rng.random()
        if kind < 0.62:
            yaw = common + rng.normal(0, 0.4)
        elif kind < 0.9:
            yaw = rng.normal(0, 0.6) - 0.1 * np.sign(x)
        else:
            yaw = rng.uniform(-np.pi, np.pi)
        places.append((float(x), float(-away), float(yaw)))
    return places
