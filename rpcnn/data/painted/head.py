"""The heads of painted people: faces, hair, glasses and hats on a ball with a yaw angle."""

import numpy as np

from .canvas import KEEP, Canvas
from .look import FACE, HAIR, HAT, SUNGLASSES, Cloth, Look


class Head:
    """A head centered at (x, y) with half axes (rx, ry), all in pixels, turned by `yaw` (0 = facing the viewer)."""

    def __init__(
        self,
        canvas: Canvas,
        look: Look,
        x: float,
        y: float,
        rx: float,
        ry: float,
        yaw: float,
        light: float,
        number: int,
    ):
        self.canvas, self.look, self.light, self.number = canvas, look, light, number
        self.x, self.y, self.rx, self.ry, self.yaw = x, y, rx, ry, yaw

    @property
    def from_behind(self) -> bool:
        return bool(np.cos(self.yaw) < -0.2)

    def _stamp(self, shape, cloth: Cloth, label: int, gloss: float = 0.0):
        if shape is not None:
            self.canvas.stamp(shape, cloth.paint(shape, self.light, gloss), label, self.number)

    def back_hair(self):
        """Paint the hair that hangs from the head: behind the body in a front view, in front of it from behind."""
        look, x, y, rx, ry = self.look, self.x, self.y, self.rx, self.ry
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        if look.hat is not None and look.hair_style == "bun":
            return  # it is under the hat
        if look.hair_style in ("long", "bob"):
            drop = 2.3 if look.hair_style == "long" else 1.15
            x0, wide = x - 0.42 * sin * rx, rx * (1.18 - 0.35 * abs(sin))
            points = [(-0.9, -0.6), (0, -1.0), (0.9, -0.6), (1.08, 0.2), (1.0, drop * 0.8), (0.55, drop),
                      (-0.55, drop), (-1.0, drop * 0.8), (-1.08, 0.2)]  # fmt: skip
            self._stamp(self.canvas.outline([(x0 + wide * u, y + ry * v) for u, v in points]), look.hair, HAIR, 0.18)
        elif look.hair_style == "ponytail":
            x0 = x - 0.95 * sin * rx
            chain = [(x0, y - 0.35 * ry), (x0 - 0.5 * sin * rx, y + 0.5 * ry), (x0 - 0.45 * sin * rx, y + 1.7 * ry)]
            self._stamp(self.canvas.tube(chain, [0.28 * rx, 0.42 * rx, 0.16 * rx]), look.hair, HAIR, 0.18)
        elif look.hair_style == "bun":
            shape = self.canvas.ellipse(x - 0.8 * sin * rx, y - (0.75 + 0.35 * abs(cos)) * ry, 0.45 * rx, 0.4 * ry)
            self._stamp(shape, look.hair, HAIR, 0.18)
        elif look.hair_style == "afro":
            shape = self.canvas.ellipse(x - 0.2 * sin * rx, y - 0.25 * ry, 1.5 * rx, 1.25 * ry)
            self._stamp(shape, look.hair, HAIR)

    def _spot(self, azimuth: float, up: float):
        """A point on the head: (x offset, y offset) in head radii and how far it faces the viewer, -1..1."""
        azimuth = np.radians(azimuth)
        level = np.sqrt(max(1 - up * up, 0))
        x, z = np.sin(azimuth) * level, np.cos(azimuth) * level
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        return x * cos + z * sin, -up, z * cos - x * sin

    def paint(self):
        """The head from the skin outwards: face, scalp, glasses, hat."""
        look, canvas, x, y, rx, ry = self.look, self.canvas, self.x, self.y, self.rx, self.ry
        for azimuth in (82, -82):
            u, v, facing = self._spot(azimuth, -0.1)
            if facing > -0.25:
                self._stamp(canvas.ellipse(x + 1.02 * u * rx, y + v * ry, 0.16 * rx, 0.2 * ry), look.skin, FACE)
        u, v, facing = self._spot(0, -0.15)
        self._stamp(canvas.ellipse(x + u * 1.06 * rx, y + v * ry, 0.14 * rx, 0.12 * ry), look.skin, FACE)
        self._stamp(canvas.ellipse(x, y, rx, ry), look.skin, FACE)
        self._face(x, y, rx, ry)
        self._scalp(x, y, rx, ry)
        if look.glasses is not None:
            self._glasses(x, y, rx, ry)
        if look.hat is not None:
            self.hat()

    def _scalp(self, x, y, rx, ry):
        """Hair on the head: each pixel is a point of a ball, and has hair where it lies above the hairline there."""
        look = self.look
        volume = 1.03 if look.hair_style == "buzz" else 1.12
        shape = self.canvas.ellipse(x, y - 0.02 * ry, volume * rx, volume * ry)
        if shape is None:
            return
        xs, ys = shape.pixels()
        u, up = (xs - x) / rx, (y - ys) / ry
        depth = np.sqrt(np.maximum(volume**2 - u**2 - up**2, 0))
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        azimuth = np.abs(np.arctan2(u * cos - depth * sin, u * sin + depth * cos))
        nape = {"buzz": -0.45, "short": -0.55}.get(look.hair_style, -0.8)
        fringe = 0.62 if look.hair_style in ("buzz", "bun", "ponytail", "afro") else 0.42
        side = -0.7 if look.hair_style in ("long", "bob") else 0.0
        hairline = np.interp(azimuth, np.radians([0, 35, 62, 88, 115, 180]),
                             [fringe, fringe - 0.05, 0.15 + side * 0.6, -0.2 + side * 0.5, nape, nape])  # fmt: skip
        shape.coverage = shape.coverage * np.clip((up - hairline) * ry + 0.5, 0, 1).astype(np.float32)
        self._stamp(shape, look.hair, HAIR, 0.2)

    def _face(self, x, y, rx, ry):
        canvas, skin = self.canvas, self.look.skin.color
        red = np.clip(skin * (0.95, 0.62, 0.58), 0, 1)

        def dot(azimuth, up, wide, high, color, strength=1.0):
            u, v, facing = self._spot(azimuth, up)
            if facing > 0.1:
                shape = canvas.ellipse(x + u * rx, y + v * ry, wide * rx * max(facing, 0.35), high * ry)
                if shape is not None:
                    shape.coverage = shape.coverage * np.float32(strength)
                    canvas.stamp(shape, color, KEEP)

        for azimuth in (26, -26):
            dot(azimuth * 1.5, -0.35, 0.2, 0.13, red, 0.35)
            dot(azimuth, 0.02, 0.17, 0.13, (0.97, 0.96, 0.94))
            dot(azimuth, 0.02, 0.1, 0.115, (0.12, 0.09, 0.08))
            dot(azimuth, 0.25, 0.2, 0.035, self.look.hair.color * 0.7, 0.9)
        dot(0, -0.2, 0.1, 0.09, skin * 0.86, 0.8)
        dot(0, -0.52, 0.28, 0.065, (0.62, 0.2, 0.2), 0.9)
        dot(0, -0.49, 0.26, 0.04, skin, 0.9)  # lifts the middle of the mouth into a smile

    def _glasses(self, x, y, rx, ry):
        canvas, frame = self.canvas, self.look.glasses
        for azimuth in (26, -26):
            u, v, facing = self._spot(azimuth, 0.04)
            if facing > 0.05:
                width = 0.34 * rx * max(facing, 0.45)
                self._stamp(canvas.ellipse(x + 1.04 * u * rx, y + v * ry, width, 0.25 * ry), frame, SUNGLASSES, 0.5)
        for a, b in ((-12, 12), (45, 85), (-45, -85)):
            (ua, va, fa), (ub, vb, fb) = self._spot(a, 0.08), self._spot(b, 0.08)
            if fa > 0.05 and fb > -0.1:
                bar = canvas.tube([(x + ua * rx * 1.03, y + va * ry), (x + ub * rx * 1.03, y + vb * ry)],
                                  np.array([0.07, 0.06]) * ry)  # fmt: skip
                self._stamp(bar, frame, SUNGLASSES)

    def hat(self):
        look, canvas, x, y, rx, ry = self.look, self.canvas, self.x, self.y, self.rx, self.ry
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        rim = y - 0.38 * ry
        if look.hat_style == "sun":
            self._stamp(canvas.ellipse(x, rim, 2.0 * rx, 0.34 * ry, 0.1 * sin), look.hat, HAT)
        if look.hat_style == "top":
            self._stamp(canvas.ellipse(x, rim, 1.5 * rx, 0.22 * ry), look.hat, HAT)
            crown = [(-0.95, 0.05), (-0.9, -1.3), (0.9, -1.3), (0.95, 0.05)]
            self._stamp(canvas.outline([(x + u * rx, rim + v * ry) for u, v in crown], smooth=False), look.hat, HAT)
            band = canvas.tube([(x - 0.9 * rx, rim - 0.08 * ry), (x + 0.9 * rx, rim - 0.08 * ry)], [0.1 * ry] * 2)
            if band is not None:
                canvas.stamp(band, look.hat.second * 0.8, HAT, self.number)
            return
        tall = {"cap": 0.88, "beanie": 1.0, "sun": 0.85}[look.hat_style]
        grow = 1.14 if look.hat_style == "beanie" else 1.1
        dome = [(-grow, 0.08), (-grow * 0.96, -0.35 * tall), (-0.6 * grow, -0.8 * tall), (0, -0.98 * tall),
                (0.6 * grow, -0.8 * tall), (grow * 0.96, -0.35 * tall), (grow, 0.08), (0, 0.16)]  # fmt: skip
        self._stamp(canvas.outline([(x + u * rx, rim + v * ry) for u, v in dome]), look.hat, HAT)
        if look.hat_style == "cap" and cos > -0.5:
            wide = rx * (0.62 + 0.3 * max(cos, 0) + 0.25 * abs(sin))
            brim = canvas.ellipse(x + 1.05 * sin * rx, rim + 0.12 * ry * max(cos, 0) + 0.03 * ry, wide, 0.16 * ry)
            if brim is not None:
                canvas.stamp(brim, look.hat.second * 0.85, HAT, self.number)
        if look.hat_style == "beanie":
            band = canvas.tube([(x - grow * rx, rim), (x, rim + 0.09 * ry), (x + grow * rx, rim)], [0.15 * ry] * 3)
            if band is not None:
                canvas.stamp(band, look.hat.second, HAT, self.number)
            self._stamp(canvas.ellipse(x, rim - 1.05 * ry, 0.3 * rx, 0.26 * ry), look.hat, HAT)
