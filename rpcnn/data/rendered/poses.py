"""Poses: rotations of the bones, by rules (standing, walking, sitting, …) or from recorded motions.

Directions are in the frame of the trunk: x to the person's left, y up, z forwards; a right limb mirrors x.
"""

import math
import re

import numpy as np

from .bodies import Body

STANCES = ("stand", "walk", "run", "sit", "ride", "squat", "floor", "lie", "motion")

# Directions of the left upper arm and forearm, and how often they occur.
_ARMS = (
    ((0.22, -1, 0.0), (0.12, -1, 0.22), 4.5),  # hanging
    ((0.3, -0.95, -0.15), (0.1, -0.9, 0.4), 2.5),
    ((0.55, -0.8, -0.25), (-0.75, -0.45, 0.35), 1.8),  # hand on the hip
    ((0.3, -0.95, 0.1), (-0.6, 0.05, 0.8), 2.2),  # held before the belly
    ((0.3, -0.9, 0.15), (-0.1, -0.1, 1), 2.0),  # forearm forwards: carrying
    ((0.35, -0.9, 0.25), (-0.95, 0.1, 0.35), 2.2),  # folded
    ((0.35, -0.8, 0.4), (-0.1, 0.3, 0.9), 1.6),
    ((0.3, -0.75, 0.5), (-0.35, 0.85, 0.35), 1.8),  # hand at the face
    ((0.45, -0.6, 0.6), (-0.5, 0.75, 0.2), 1.0),
    ((0.8, 0.3, 0.2), (0.2, 1, 0.1), 0.6),  # waving
    ((0.4, 0.85, 0.2), (0.1, 1, 0.1), 0.4),  # raised
    ((0.3, -0.2, 0.95), (0.0, 0.05, 1), 0.7),  # reaching
    ((1, -0.1, 0.1), (1, -0.05, 0.25), 0.7),  # around a neighbor
    ((0.9, -0.2, -0.1), (0.85, 0.1, 0.4), 0.7),
    ((0.8, -0.4, 0.4), (-0.3, 0.5, 0.7), 0.7),
    ((0.35, -0.85, -0.45), (-0.6, -0.6, -0.2), 0.8),  # behind the back
    ((0.45, -0.85, -0.2), (0.2, -0.9, 0.45), 1.2),  # in a pocket
)
_ARM_ODDS = np.array([arm[2] for arm in _ARMS]) / sum(arm[2] for arm in _ARMS)
_TO_OURS = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], float)  # DeepMimic: x forwards, y up, z to the right
_SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
_NECK = ("neck01", "neck02", "neck03", "head")


def unit(direction) -> np.ndarray:
    """A vector [3] scaled to length 1."""
    direction = np.asarray(direction, float)
    return direction / (math.sqrt(direction @ direction) + 1e-9)


def cross(a, b) -> np.ndarray:
    """The cross product of two vectors [3]; numpy's takes 20 times as long on so few numbers."""
    return np.array((a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]))


def turn(axis, angle: float) -> np.ndarray:
    """Rotation [3, 3] by an angle in radians about an axis."""
    x, y, z = unit(axis)
    c, s = math.cos(angle), math.sin(angle)
    d = 1 - c
    return np.array(
        [
            [c + d * x * x, d * x * y - s * z, d * x * z + s * y],
            [d * x * y + s * z, c + d * y * y, d * y * z - s * x],
            [d * x * z - s * y, d * y * z + s * x, c + d * z * z],
        ]
    )


def between(start, end) -> np.ndarray:
    """The smallest rotation that takes one direction to another."""
    a, b = unit(start), unit(end)
    axis = cross(a, b)
    size = math.sqrt(axis @ axis)
    return turn(axis if size > 1e-6 else (0, 0, 1), math.atan2(size, a @ b))


class Poser:
    """Draws poses for a body.

    Args:
        body: the body.
        motions: recorded frames [F, 44], see `assets.read_motions`; may be empty.
    """

    def __init__(self, body: Body, motions: np.ndarray):
        self.body, self.motions = body, motions
        self.fingers = {
            side: [name for name in body.skeleton.names if re.match(r"finger[2-5]-.*" + side, name)] for side in "LR"
        }

    def draw(
        self, rng: np.random.Generator, joints: np.ndarray, stance: str, around: str = ""
    ) -> dict[str, np.ndarray]:
        """Rotations [3, 3] by the names of the bones, for a shape with these joints [B, 3].

        `around` names the arms that lie around a neighbor: "", "L", "R" or "LR".
        """
        if stance == "motion" and len(self.motions):
            trunk, head, arms, legs = self._recorded(rng)
        else:
            trunk, head, arms, legs = _ruled(rng, "stand" if stance == "motion" else stance)
        turns: dict[str, np.ndarray] = {}
        for side in around:
            sign, low = (1 if side == "L" else -1), rng.random() < 0.3
            upper = np.array((sign * 0.8, -0.6 if low else rng.uniform(-0.35, 0.05), -0.35))
            fore = np.array((sign, -0.5 if low else rng.uniform(-0.3, 0.15), rng.uniform(-0.15, 0.4)))
            arms[side] = upper + rng.normal(0, 0.07, 3), fore + rng.normal(0, 0.07, 3)
        spine, root = trunk
        turns["root"] = root
        for name in _SPINE:
            turns[name] = spine
        for name in _NECK:
            turns[name] = head
        if rng.random() < 0.4:
            turns["jaw"] = turn((1, 0, 0), rng.uniform(0, 0.25))
        for sign, side in ((1, "L"), (-1, "R")):
            self._arm(turns, rng, joints, side, sign, *arms[side])
            self._leg(turns, rng, joints, side, sign, *legs[side])
        return {name: rotation for name, rotation in turns.items() if name in self.body.number}

    def _at(self, joints, bone: str) -> np.ndarray:
        return joints[self.body.number[bone]]

    def _arm(self, turns, rng, joints, side, sign, upper, fore):
        shoulder, elbow, wrist = (self._at(joints, f"{bone}.{side}") for bone in ("upperarm01", "lowerarm01", "wrist"))
        lift = turn((0, 0, 1), sign * max(0, unit(upper)[1] + 0.2) * 0.5)
        turns[f"clavicle.{side}"] = lift
        up = between(elbow - shoulder, upper)
        turns[f"upperarm01.{side}"] = lift.T @ up
        turns[f"lowerarm01.{side}"] = up.T @ between(up @ (wrist - elbow), fore) @ up
        turns[f"lowerarm02.{side}"] = turn(wrist - elbow, rng.normal(0, 0.5))
        turns[f"wrist.{side}"] = turn(rng.normal(0, 1, 3), rng.normal(0, 0.2))
        curl = rng.uniform(0, 0.7) if rng.random() < 0.65 else rng.uniform(0.7, 1.4)
        first, last = (self._at(joints, f"finger{k}-1.{side}") - wrist for k in (2, 5))
        palm = cross(first, last) * sign
        for name in self.fingers[side]:
            turns[name] = turn(cross(self._at(joints, name) - wrist, palm), curl * rng.uniform(0.6, 1.1))

    def _leg(self, turns, rng, joints, side, sign, upper, lower, turned_out):
        hip, knee, ankle = (self._at(joints, f"{bone}.{side}") for bone in ("upperleg01", "lowerleg01", "foot"))
        up = turn((0, 1, 0), sign * rng.normal(0.1, 0.12)) @ between(knee - hip, upper)
        turns[f"upperleg01.{side}"] = up
        low = between(up @ (ankle - knee), lower)
        turns[f"lowerleg01.{side}"] = up.T @ low @ up
        flat = max(0.0, -unit(lower)[1])  # the sole follows the shin where the shin does not stand
        foot = (low @ up).T @ turn((0, 1, 0), sign * turned_out)
        turns[f"foot.{side}"] = foot if flat > 0.85 else turn((1, 0, 0), rng.normal(0.1, 0.2))

    def _recorded(self, rng):
        frame = self.motions[rng.integers(len(self.motions))].astype(float)
        mirror = rng.random() < 0.5

        def rotation(at):
            w, x, y, z = frame[at : at + 4] / (np.linalg.norm(frame[at : at + 4]) + 1e-9)
            r = np.array(
                [
                    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
                ]
            )
            r = _TO_OURS @ r @ _TO_OURS.T
            flip = np.diag((-1.0, 1, 1))
            return flip @ r @ flip if mirror else r

        root, chest, neck = rotation(4), rotation(8), rotation(12)
        facing = root @ (0, 0, 1)
        root = turn((0, 1, 0), -np.arctan2(facing[0], facing[2])) @ root  # every motion looks forwards
        down = np.array((0, -1.0, 0))
        arms, legs = {}, {}
        sides = {"R": (16, 20, 25, 29), "L": (30, 34, 39, 43)}
        for name, (hip, knee, shoulder, elbow) in sides.items():
            side = name if not mirror else ("L" if name == "R" else "R")
            bend = turn((1, 0, 0), -frame[knee])
            legs[side] = rotation(hip) @ down, rotation(hip) @ bend @ down, 0.15
            arms[side] = rotation(shoulder) @ down, rotation(shoulder) @ turn((1, 0, 0), -frame[elbow]) @ down
        return (_root(chest, 5), root), _root(neck, 4) @ _head(rng, 0.5), arms, legs


def _root(rotation: np.ndarray, parts: int) -> np.ndarray:
    """The rotation that gives `rotation` when applied `parts` times."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    return turn(axis, angle / parts) if np.linalg.norm(axis) > 1e-6 else np.eye(3)


def _head(rng, amount: float = 1.0) -> np.ndarray:
    yaw, pitch, roll = rng.normal(0, 0.36), rng.normal(0.06, 0.2), rng.normal(0, 0.13)
    if rng.random() < 0.15:
        pitch += rng.uniform(0.2, 0.6)  # looking down
    turned = turn((0, 1, 0), amount * yaw / 4) @ turn((1, 0, 0), amount * pitch / 4)
    return turned @ turn((0, 0, 1), amount * roll / 4)


def _ruled(rng, stance: str):
    """(spine per bone, root), head per bone, arms and legs {side: directions}."""
    n = rng.normal
    bend, lean, twist = n(0.03, 0.09), n(0, 0.06), n(0, 0.12)
    if rng.random() < 0.12 or stance in ("run", "ride"):
        bend += rng.uniform(0.15, 0.6)
    if stance in ("sit", "squat", "floor"):
        bend += rng.uniform(-0.1, 0.45)
    spine = turn((0, 1, 0), twist / 5) @ turn((1, 0, 0), bend / 5) @ turn((0, 0, 1), lean / 5)
    root = np.eye(3)
    if stance == "lie":
        root = turn((1, 0, 0), rng.choice((-1, 1)) * (np.pi / 2 - abs(n(0, 0.12)))) @ turn((0, 1, 0), n(0, 0.5))
    arms, legs = {}, {}
    both = rng.random() < 0.5
    chosen = rng.choice(len(_ARMS), p=_ARM_ODDS)
    stride = n(0, 0.3) if stance == "walk" else rng.choice((-1, 1)) * rng.uniform(0.4, 0.9)
    for sign, side in ((1, "L"), (-1, "R")):
        if not both:
            chosen = rng.choice(len(_ARMS), p=_ARM_ODDS)
        upper, fore = (np.array(direction, float) + n(0, 0.13, 3) for direction in _ARMS[chosen][:2])
        if stance == "run":
            upper, fore = np.array((0.25, -0.8, -sign * stride)), np.array((-0.2, 0.1 - 0.3 * sign * stride, 1.0))
        if stance == "ride" and rng.random() < 0.8:
            upper, fore = np.array((0.2, -0.6, 0.8)) + n(0, 0.1, 3), np.array((0.1, -0.35, 1)) + n(0, 0.1, 3)
        if stance in ("sit", "floor") and rng.random() < 0.45:  # hands on the lap
            upper, fore = np.array((0.3, -0.9, 0.25)) + n(0, 0.1, 3), np.array((-0.3, -0.35, 0.9)) + n(0, 0.15, 3)
        mirrored = np.array((sign, 1, 1))
        arms[side] = upper * mirrored, fore * mirrored
        if stance == "sit":
            up, low = (rng.uniform(0.02, 0.4), -0.15 + n(0, 0.15), 1), (n(0, 0.12), -1, n(0.05, 0.25))
        elif stance == "ride":
            up, low = (rng.uniform(0.15, 0.5), n(-0.3, 0.25), 0.9), (0.05, -1, n(-0.35, 0.2))
        elif stance == "squat":
            up, low = (rng.uniform(0.1, 0.5), n(0.1, 0.25), 0.9), (n(0, 0.1), -0.8, n(-0.6, 0.2))
        elif stance == "floor":
            up = (rng.uniform(0.1, 0.9), n(0.05, 0.12), 1)
            low = (rng.uniform(-0.9, 0.1), n(-0.15, 0.1), rng.uniform(-0.2, 1))
        elif stance in ("walk", "run"):
            z = sign * stride + n(0, 0.08)
            back = abs(n(0, 0.25)) if stance == "walk" else rng.uniform(0.3, 1.2)
            up, low = (rng.uniform(0, 0.12), -1, z), (0.03, -1, min(z, 0.05) - back)
        else:
            z = n(0.03, 0.07)
            up, low = (abs(n(0.06, 0.08)), -1, z), (abs(n(0.05, 0.06)), -1, z - abs(n(0, 0.08)))
        legs[side] = np.array(up) * mirrored, np.array(low) * mirrored, n(0.15, 0.15)
    return (spine, root), _head(rng), arms, legs
