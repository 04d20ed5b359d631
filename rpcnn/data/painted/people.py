"""Painted people: a jointed body in three dimensions, posed, turned, projected and dressed, part by part.

Body coordinates are in units of the person's height: X to the person's own left, Y up, Z forward. The body is turned
by a yaw angle about Y (0 faces the viewer, 90° faces the right edge of the image) and seen from slightly above. Since
left and right are the person's own, a person who faces the viewer has the left arm on the right side of the image,
and a mirror image exchanges the two.
"""

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas
from .head import Head
from .look import (
    ARM,
    COAT,
    DRESS,
    GLOVE,
    LEG,
    PANTS,
    SCARF,
    SHOE,
    SKIRT,
    SOCKS,
    TORSO,
    UPPER,
    Cloth,
    Look,
    pick_look,
)

_CAMERA_PITCH = 0.16  # radians downwards: feet that point at the viewer stay visible

# Arms per side: (upper swing, upper spread, fore swing, fore spread) in degrees; swing is forward, spread is sideways.
# Legs per side: (thigh swing, thigh spread, shin swing).
_POSES = {
    "stand": (((3, 8, 10, 4), (3, 8, 10, 4)), ((0, 4, 0), (0, 4, 0))),
    "walk": (((28, 6, 45, 4), (-25, 6, -5, 6)), ((-22, 2, -34), (24, 2, 14))),
    "run": (((45, 8, 120, 0), (-40, 12, 30, -8)), ((-28, 2, -80), (50, 2, 5))),
    "wave": (((5, 75, 20, 165), (3, 10, 12, 4)), ((0, 5, 0), (0, 3, 0))),
    "hips": (((-5, 42, 12, -42), (-5, 42, 12, -42)), ((0, 7, 0), (0, 7, 0))),
    "hip": (((-5, 42, 12, -42), (4, 8, 14, 4)), ((4, 8, 0), (0, 4, 0))),
    "cheer": (((0, 140, 0, 165), (0, 140, 0, 165)), ((0, 8, 0), (0, 8, 0))),
    "spread": (((0, 78, 0, 92), (0, 78, 0, 92)), ((0, 10, 0), (0, 10, 0))),
    "point": (((82, 10, 88, 6), (0, 8, 10, 4)), ((6, 3, 2), (-6, 3, -8))),
    "hold": (((14, 14, 75, -30), (14, 14, 75, -30)), ((0, 4, 0), (0, 4, 0))),
    "sit": (((15, 10, 50, 0), (15, 10, 50, 0)), ((78, 10, 4), (78, 10, 4))),
}
_POSE_CHOICES = ("stand", "stand", "walk", "walk", "walk", "run", "wave", "hips", "hip", "cheer", "spread", "point",
                 "hold", "sit")  # fmt: skip


@dataclass
class Person:
    """Where and how a person stands: feet (x, y) and height in pixels, yaw in radians (0 = facing the viewer)."""

    x: float
    y: float
    height: float
    yaw: float
    number: int  # in the map of person numbers


def pick_pose(rng: np.random.Generator) -> str:
    """The name of a pose; standing and walking are the commonest."""
    return _POSE_CHOICES[rng.integers(len(_POSE_CHOICES))]


def _limb(swing: float, spread: float, side: int) -> np.ndarray:
    """Direction of a bone that hangs down, swung forward and then spread to its own side."""
    swing, spread = np.radians(swing), np.radians(spread)
    return np.array([side * np.sin(spread), -np.cos(spread) * np.cos(swing), np.cos(spread) * np.sin(swing)])


def _cut(points, radii, start: float, stop: float, extra: float = 0.0):
    """The piece of a chain between two fractions of its length, with `extra` added to its radii."""
    points, radii = np.asarray(points, np.float64), np.asarray(radii, np.float64)
    steps = np.hypot(*np.diff(points, axis=0).T)
    at = np.concatenate([[0], np.cumsum(steps)]) / max(steps.sum(), 1e-6)
    inner = [i for i in range(1, len(points) - 1) if start < at[i] < stop]
    where = np.array([start, *at[inner], stop])
    piece = np.stack([np.interp(where, at, points[:, 0]), np.interp(where, at, points[:, 1])], 1)
    return piece, np.interp(where, at, radii) + extra


class Figure:
    """One person being painted: joints projected to pixels, and a method per layer of body and clothes."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator, person: Person, look: Look, pose: str, light: float):
        self.canvas, self.rng, self.person, self.look, self.light = canvas, rng, person, look, light
        self.pose = pose
        self.roll = rng.uniform(-0.04, 0.04)
        head_yaw = person.yaw + np.radians(rng.uniform(-30, 30))
        self.cos, self.sin = np.cos(person.yaw), np.sin(person.yaw)
        self._place_joints()
        rx, ry = 0.08 * person.height * look.head_scale, 0.1 * person.height * look.head_scale
        x, chin = self._at(0.02 * self.sin, (self.hip_height + 0.34) * np.cos(_CAMERA_PITCH))
        self.head = Head(canvas, look, x, chin - 0.88 * ry, rx, ry, head_yaw, light, person.number)

    # ---- the body -----------------------------------------------------------------------------------------------

    def _place_joints(self):
        rng, girth = self.rng, self.look.girth
        arms, legs = _POSES[self.pose]
        if rng.random() < 0.5:
            arms, legs = arms[::-1], legs[::-1]
        jitter = lambda angles: [a + rng.uniform(-7, 7) for a in angles]
        leg_bones = []
        for side, angles in zip((1, -1), legs, strict=True):
            thigh_swing, spread, shin_swing = jitter(angles)
            leg_bones.append((_limb(thigh_swing, spread, side) * 0.215, _limb(shin_swing, spread * 0.7, side) * 0.2))
        self.hip_height = 0.045 - min((thigh + shin)[1] for thigh, shin in leg_bones)
        hip = self.hip_height
        self.legs, self.feet, self.arms, self.hands = [], [], [], []
        self.leg_depth, self.arm_depth = [], []
        for i, side in enumerate((1, -1)):
            thigh, shin = leg_bones[i]
            top = np.array([side * 0.052 * girth, hip, 0.0])
            knee, ankle = top + thigh, top + thigh + shin
            out = np.radians(rng.uniform(5, 25))
            toe = ankle + 0.085 * np.array([side * np.sin(out), -0.24, np.cos(out)])
            heel = ankle + np.array([0, -0.018, -0.018])
            self.legs.append(np.array([self._pixel(p) for p in (top, knee, ankle)]))
            self.feet.append(np.array([self._pixel(p) for p in (heel, toe)]))
            self.leg_depth.append(np.mean([self._screen(p)[2] for p in (knee, ankle)]))
        for side, angles in zip((1, -1), arms, strict=True):
            upper_swing, upper_spread, fore_swing, fore_spread = jitter(angles)
            shoulder = np.array([side * 0.103 * girth, hip + 0.274, 0.0])
            elbow = shoulder + 0.15 * _limb(upper_swing, upper_spread, side)
            fore = _limb(fore_swing, fore_spread, side)
            wrist, hand = elbow + 0.13 * fore, elbow + 0.158 * fore
            self.arms.append(np.array([self._pixel(p) for p in (shoulder, elbow, wrist)]))
            self.hands.append(self._pixel(hand))
            self.arm_depth.append(np.mean([self._screen(p)[2] for p in (elbow, hand)]))
        scale = self.person.height
        self.arm_radii = np.array([0.034, 0.029, 0.021]) * scale * (0.5 + 0.5 * girth)
        self.leg_radii = np.array([0.058, 0.041, 0.027]) * scale * (0.5 + 0.5 * girth)

    def _screen(self, point) -> tuple[float, float, float]:
        """Body coordinates -> (right, up, towards the viewer), still in units of the height."""
        x, y, z = point
        depth = z * self.cos - x * self.sin
        return x * self.cos + z * self.sin, y * np.cos(_CAMERA_PITCH) - depth * np.sin(_CAMERA_PITCH), depth

    def _at(self, right: float, up: float) -> tuple[float, float]:
        """Units of the height on the picture plane -> pixels, with the body's slight lean."""
        cos, sin, scale = np.cos(self.roll), np.sin(self.roll), self.person.height
        return self.person.x + scale * (right * cos + up * sin), self.person.y - scale * (up * cos - right * sin)

    def _pixel(self, point) -> tuple[float, float]:
        right, up, _ = self._screen(point)
        return self._at(right, up)

    def _half(self, wide: float, deep: float) -> float:
        """Half width on the picture of an elliptical cross-section of the turned body."""
        return self.look.girth * float(np.hypot(wide * self.cos, deep * self.sin))

    def _stamp(self, shape, cloth: Cloth, label: int, gloss: float = 0.0):
        if shape is not None:
            self.canvas.stamp(shape, cloth.paint(shape, self.light, gloss), label, self.person.number)

    def _levels(self, grow: float = 0.0) -> dict[str, tuple[float, float, float]]:
        """Cross-sections of the trunk: name -> (left edge, right edge, height above ground)."""
        hip = self.hip_height
        sections = {
            "shoulder": (0.125, 0.058, 0.005, 0.292),
            "chest": (0.108, 0.072, 0.016, 0.215),
            "waist": (0.09, 0.06, 0.006, 0.115),
            "hip": (0.1, 0.072, -0.012, 0.01),
            "crotch": (0.09, 0.06, -0.006, -0.035),
        }
        levels = {}
        for name, (wide, deep, forward, up) in sections.items():
            half, middle = self._half(wide, deep) + grow, forward * self.sin
            levels[name] = (middle - half, middle + half, (hip + up) * np.cos(_CAMERA_PITCH))
        return levels

    def _trunk(self, names, grow=0.0, neckline=0.0, hem=None):
        """Outline of the trunk through the named cross-sections, with a neckline on top and a straight hem."""
        levels = self._levels(grow)
        left = [(levels[n][0], levels[n][2]) for n in names]
        right = [(levels[n][1], levels[n][2]) for n in names]
        if hem is not None:
            left.append((levels[names[-1]][0], hem))
            right.append((levels[names[-1]][1], hem))
        top = self._collar(levels, neckline, 0.045) if names[0] == "shoulder" else []
        outline = [*left[::-1], *top, *right]
        return self.canvas.outline([self._at(*p) for p in outline])

    def _collar(self, levels, neckline: float, neck: float) -> list[tuple[float, float]]:
        """From one side of the neck over the neckline to the other side."""
        up, half = levels["shoulder"][2], neck * (0.35 + 0.65 * abs(self.cos))
        return [(-half, up + 0.028), (self.sin * 0.02, up + 0.02 - neckline), (half, up + 0.028)]

    # ---- layers, in the order in which they are worn -------------------------------------------------------------

    def leg(self, i: int):
        look, canvas, scale = self.look, self.canvas, self.person.height
        chain, radii = self.legs[i], self.leg_radii
        long_pants = look.lower == "pants" and look.lower_length > 0.95
        if not long_pants:
            self._stamp(canvas.tube(chain, radii), look.skin, LEG[i])
            if look.socks is not None:
                self._stamp(canvas.tube(*_cut(chain, radii, look.sock_length, 1, 0.004 * scale)), look.socks, SOCKS)
        heel, toe = self.feet[i]
        sole = canvas.tube(self.feet[i] + np.array([0, 0.011 * scale]), [0.029 * scale, 0.026 * scale])
        if sole is not None:
            canvas.stamp(sole, look.shoes.color * 0.45, SHOE[i], self.person.number)
        self._stamp(canvas.tube([heel, toe], [0.031 * scale, 0.026 * scale]), look.shoes, SHOE[i], 0.25)
        if look.lower == "pants":
            piece = _cut(chain, radii, 0, min(look.lower_length, 0.97), 0.009 * scale)
            self._stamp(canvas.tube(*piece), look.lower_cloth, PANTS)
        if look.boots:
            self._stamp(canvas.tube(*_cut(chain, radii, look.boots, 1, 0.011 * scale)), look.shoes, SHOE[i], 0.25)

    def trunk(self):
        look, canvas, scale = self.look, self.canvas, self.person.height
        self._stamp(self._trunk(("shoulder", "chest", "waist", "hip", "crotch")), look.skin, TORSO)
        neck_y = self.hip_height + 0.3
        neck = canvas.tube([self._at(0, neck_y - 0.03), self._at(0.014 * self.sin, neck_y + 0.06)],
                           np.array([0.04, 0.034]) * scale * (0.5 + 0.5 * look.girth))  # fmt: skip
        self._stamp(neck, look.skin, TORSO)

    def pelvis(self):
        if self.look.lower == "pants":
            self._stamp(self._trunk(("waist", "hip", "crotch"), grow=-0.002), self.look.lower_cloth, PANTS)

    def top(self):
        look = self.look
        if look.lower != "dress":
            hem = (self.hip_height + look.hem) * np.cos(_CAMERA_PITCH)
            names = ("shoulder", "chest", "waist") if look.hem > 0.03 else ("shoulder", "chest", "waist", "hip")
            self._stamp(self._trunk(names, 0.008, self._neckline(), hem=hem), look.top, UPPER)

    def _neckline(self) -> float:
        return self.look.neckline if self.cos > 0.1 else 0.012

    def _hem(self, length: float, flare: float, grow: float) -> list[tuple[float, float]]:
        """Left and right corners, in pixels, of a hem that lies at a fraction of both legs."""
        scale = self.person.height
        ends = [_cut(chain, self.leg_radii, 0, length) for chain in self.legs]
        x = [float(points[-1][0]) for points, _ in ends]
        reach = [float(radii[-1]) + (flare + grow) * scale for _, radii in ends]
        left, right = min(np.subtract(x, reach)), max(np.add(x, reach))
        y = max(float(points[-1][1]) for points, _ in ends)
        return [(left, y), ((left + right) / 2, y + 0.012 * scale), (right, y)]

    def _draped(self, names, length: float, flare: float, grow: float, neckline: float = 0.0):
        """Outline from the trunk down to a hem over the legs: skirts, dresses, long coats."""
        levels = self._levels(grow)
        left = [self._at(levels[n][0], levels[n][2]) for n in names]
        right = [self._at(levels[n][1], levels[n][2]) for n in names]
        hem = self._hem(length, flare, grow)
        over = [self._at(*p) for p in self._collar(levels, neckline, 0.05)] if names[0] == "shoulder" else []
        return self.canvas.outline([*left[::-1], *over, *right, hem[2], hem[1], hem[0]])

    def skirt(self):
        look = self.look
        if look.lower == "skirt":
            self._stamp(self._draped(("waist", "hip"), look.lower_length, look.flare, 0.012), look.lower_cloth, SKIRT)
        elif look.lower == "dress":
            names = ("shoulder", "chest", "waist", "hip")
            shape = self._draped(names, look.lower_length, look.flare, 0.008, self._neckline())
            self._stamp(shape, look.lower_cloth, DRESS)

    def coat(self):
        look = self.look
        if look.coat is None:
            return
        names = ("shoulder", "chest", "waist", "hip")
        length = max(look.coat_length, 0.06)
        if not (look.coat_open and self.cos > 0.25):
            self._stamp(self._draped(names, length, 0.012, 0.02, 0.01), look.coat, COAT)
            return
        levels = self._levels(0.02)
        hem = self._hem(length, 0.015, 0.02)
        opening = self.sin * 0.06
        for side in (0, 1):
            sign = 1 if side else -1
            edge = [self._at(levels[n][side], levels[n][2]) for n in names]
            up = levels["shoulder"][2]
            inner = [(opening * 0.4 + sign * 0.03, up + 0.03), (opening + sign * 0.045, up - 0.1),
                     (opening + sign * 0.055, levels["hip"][2])]  # fmt: skip
            corner = hem[2 if side else 0]
            low = (corner[0] * 0.35 + hem[1][0] * 0.65, corner[1])
            shape = self.canvas.outline([*edge, corner, low, *(self._at(*p) for p in inner[::-1])])
            self._stamp(shape, look.coat, COAT)

    def arm(self, i: int):
        look, canvas, scale = self.look, self.canvas, self.person.height
        chain, radii = self.arms[i], self.arm_radii
        sleeve_cloth, sleeve_label, sleeve = look.top, UPPER, look.sleeve
        if look.lower == "dress":
            sleeve_cloth, sleeve_label = look.lower_cloth, DRESS
        if look.coat is not None:
            sleeve_cloth, sleeve_label, sleeve = look.coat, COAT, 0.97
        self._stamp(canvas.tube(chain, radii), look.skin, ARM[i])
        wrist, hand = chain[2], np.asarray(self.hands[i])
        palm = canvas.tube([wrist, hand], np.array([0.02, 0.028]) * scale)
        self._stamp(palm, look.skin, ARM[i])
        if look.gloves is not None:
            self._stamp(canvas.tube([wrist, hand], np.array([0.027, 0.034]) * scale), look.gloves, GLOVE)
            self._stamp(canvas.tube(*_cut(chain, radii, 0.86, 1, 0.008 * scale)), look.gloves, GLOVE)
        if sleeve:
            grow = 0.011 if look.coat is not None else 0.008
            self._stamp(canvas.tube(*_cut(chain, radii, 0, sleeve, grow * scale)), sleeve_cloth, sleeve_label)

    def scarf(self):
        look, canvas, scale = self.look, self.canvas, self.person.height
        if look.scarf is None:
            return
        up = (self.hip_height + 0.318) * np.cos(_CAMERA_PITCH)
        half = 0.035 + 0.02 * abs(self.cos)
        if self.cos > -0.3:
            end = (0.03 * self.cos + 0.05 * self.sin, up - 0.15)
            tail = canvas.tube([self._at(0.02 * self.cos + 0.05 * self.sin, up), self._at(*end)],
                               np.array([0.026, 0.032]) * scale)  # fmt: skip
            self._stamp(tail, look.scarf, SCARF)
        ring = canvas.tube([self._at(-half, up), self._at(0.01 * self.sin, up - 0.012), self._at(half, up)],
                           np.array([0.03, 0.034, 0.03]) * scale)  # fmt: skip
        self._stamp(ring, look.scarf, SCARF)

    def _head_layers(self):
        """The head, and from behind the hair that hangs in front of the body and over the head, but not the hat."""
        head, style = self.head, self.look.hair_style
        if head.from_behind and style == "afro":  # around the head
            head.back_hair()
        head.paint()
        if head.from_behind and style != "afro":
            head.back_hair()
            if style in ("long", "bob") and self.look.hat is not None:
                head.hat()

    def paint(self):
        """Everything, from the back to the front."""
        far, near = [], []
        for i in sorted((0, 1), key=lambda i: self.arm_depth[i]):
            (far if self.arm_depth[i] < -0.035 else near).append(i)
        for i in far:
            self.arm(i)
        if not self.head.from_behind:
            self.head.back_hair()
        legs = sorted((0, 1), key=lambda i: self.leg_depth[i])
        knees_in_front = self.pose == "sit" and self.cos > 0.2
        if not knees_in_front:
            for i in legs:
                self.leg(i)
        self.trunk()
        self.pelvis()
        if knees_in_front:
            self.top()
            for i in legs:
                self.leg(i)
        else:
            self.top()
        self.skirt()
        self.coat()
        self.scarf()
        self._head_layers()
        for i in near:
            self.arm(i)


def paint_person(
    canvas: Canvas, rng: np.random.Generator, person: Person, light: float, accessories: float = 1.0
) -> None:
    """Paint one person, of a random look and pose, over what is on the canvas; `accessories`: see `pick_look`."""
    look = pick_look(rng, person.height, accessories)
    Figure(canvas, rng, person, look, pick_pose(rng), light).paint()
