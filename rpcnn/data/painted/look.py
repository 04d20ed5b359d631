"""The look of painted people: skin, hair, cloth and outfit."""

from dataclasses import dataclass

import numpy as np

from rpcnn.labels import CIHP

from .canvas import Shape

HAT, HAIR, GLOVE, SUNGLASSES, UPPER, DRESS, COAT, SOCKS, PANTS, TORSO, SCARF, SKIRT, FACE = range(1, 14)
ARM, LEG, SHOE = (14, 15), (16, 17), (18, 19)  # (left, right)
assert CIHP.names[TORSO] == "Torso-skin" and CIHP.names[SHOE[1]] == "Right-shoe"


def _rgb(*codes: str) -> np.ndarray:
    return np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes], np.float32)


SKIN_TONES = _rgb("f7d9c4", "f0c5a5", "e8b48f", "d69c73", "b97d56", "99623f", "774a2f", "563521")
HAIR_TONES = _rgb("1d1816", "2f211a", "4a2f1f", "6e4526", "96622f", "c79a4e", "e2c27a", "9b3f22", "8d8a88", "cfcbc6")
CLOTH = _rgb(
    "c8102e", "e4572e", "f2a541", "f6d55c", "7bb662", "2e7d4f", "1b998b", "3fa7d6", "2d6cc0", "27408b", "5b3f8c",
    "a23b72", "e58fb1", "f4f1ea", "cfd3d8", "8e959e", "4c525b", "1f2329", "8a5a3c", "c9a26b", "5e6b3a", "7a1f2b",
)  # fmt: skip
DENIM = _rgb("2b4570", "3d5a8a", "5b7db1", "1c2a44", "23262d", "b8a88a", "6b6f75")
PATTERNS = ("plain", "plain", "plain", "stripes", "bars", "checks", "dots", "band")


@dataclass
class Cloth:
    """A fabric: two colors, a pattern and its pitch in pixels."""

    color: np.ndarray
    second: np.ndarray
    pattern: str = "plain"
    pitch: float = 6.0

    def paint(self, shape: Shape | None, light: float, gloss: float = 0.0) -> np.ndarray | None:
        """Colors [h,w,3] of a shape made of this cloth, rounded by shading.

        `light` is -1 where it comes from the left, 1 from the right; `gloss` adds a highlight on that side.
        """
        if shape is None:
            return None
        across, along = shape.across, shape.along
        shade = 1.03 + 0.15 * light * across - 0.22 * across**2
        if gloss:
            shade = shade + gloss * np.exp(-(((across - 0.45 * light) / 0.25) ** 2))
        if self.pattern == "plain":
            return shade[..., None] * self.color
        xs, ys = shape.pixels()
        if self.pattern == "stripes":  # across the limb
            second = np.sin(along * (2 * np.pi / self.pitch)) > 0.1
        elif self.pattern == "bars":  # along the limb
            second = np.sin(across * 9) > 0.15
        elif self.pattern == "checks":
            second = (np.sin(xs * (2 * np.pi / self.pitch)) * np.sin(ys * (2 * np.pi / self.pitch))) > 0
        elif self.pattern == "dots":
            second = np.sin(xs * (2 * np.pi / self.pitch)) * np.sin(ys * (2 * np.pi / self.pitch)) > 0.45
        else:  # one band over the middle
            middle = float(along.max()) * 0.4
            second = np.abs(along - middle) < self.pitch * 0.9
        return shade[..., None] * np.where(np.broadcast_to(second, across.shape)[..., None], self.second, self.color)


def pick_cloth(rng: np.random.Generator, pitch: float, colors: np.ndarray = CLOTH, patterned: bool = True) -> Cloth:
    """A cloth of two colors that differ; `patterned` allows patterns, of a period of about `pitch` pixels."""
    color, second = colors[rng.integers(len(colors))], CLOTH[rng.integers(len(CLOTH))]
    if np.abs(color - second).sum() < 0.5:
        second = 1 - 0.8 * second
    jitter = rng.uniform(0.88, 1.1)
    pattern = PATTERNS[rng.integers(len(PATTERNS))] if patterned else "plain"
    return Cloth(np.clip(color * jitter, 0.04, 1), second, pattern, max(3.0, pitch * rng.uniform(0.7, 1.4)))


@dataclass
class Look:
    """One person's body and clothes. Lengths are fractions of the arm or the leg, from the shoulder or the hip."""

    skin: Cloth
    hair: Cloth
    hair_style: str  # buzz, short, bob, long, ponytail, bun, afro
    head_scale: float
    girth: float
    top: Cloth
    sleeve: float  # 0 = sleeveless
    neckline: float  # depth below the neck
    hem: float  # bottom of the top above (+) or below (-) the hip
    lower: str  # pants, skirt, dress
    lower_cloth: Cloth
    lower_length: float
    flare: float
    coat: Cloth | None
    coat_length: float
    coat_open: bool
    socks: Cloth | None
    sock_length: float
    shoes: Cloth
    boots: float  # 0 = low shoes
    gloves: Cloth | None
    scarf: Cloth | None
    hat: Cloth | None
    hat_style: str  # cap, beanie, sun, top
    glasses: Cloth | None


def pick_look(rng: np.random.Generator, height: float, accessories: float = 1.0) -> Look:
    """Draw the look of a person `height` pixels tall.

    `accessories` is a factor on how often gloves, socks, scarfs, hats and sunglasses are worn.
    """
    child = rng.random() < 0.2
    pitch = height * 0.035
    maybe = lambda p, make: make() if rng.random() < p else None
    worn = lambda p, make: maybe(p * accessories, make)
    cloth = lambda: pick_cloth(rng, pitch)
    plain = lambda: pick_cloth(rng, pitch, patterned=False)
    tone = rng.uniform(0, len(SKIN_TONES) - 1)
    below, part = int(tone), tone - int(tone)
    skin = SKIN_TONES[below] * (1 - part) + SKIN_TONES[min(below + 1, len(SKIN_TONES) - 1)] * part
    hair = HAIR_TONES[rng.integers(len(HAIR_TONES))] * rng.uniform(0.85, 1.1)
    lower = ("pants", "pants", "pants", "skirt", "skirt", "dress", "dress")[rng.integers(7)]
    if lower == "pants":
        length = (1.0, 1.0, 1.0, 0.82, 0.4, 0.3)[rng.integers(6)]
        lower_cloth = pick_cloth(rng, pitch, DENIM, patterned=False) if rng.random() < 0.6 else plain()
    else:
        length = (0.3, 0.42, 0.5, 0.62, 0.85)[rng.integers(5)]
        lower_cloth = cloth()
    bare_legs = length < 0.95
    winter = rng.random() < 0.35
    return Look(
        skin=Cloth(skin, skin),
        hair=Cloth(hair, hair),
        hair_style=("buzz", "short", "short", "bob", "long", "long", "ponytail", "bun", "afro")[rng.integers(9)],
        head_scale=rng.uniform(1.15, 1.3) if child else rng.uniform(0.97, 1.08),
        girth=rng.uniform(0.88, 1.2),
        top=cloth(),
        sleeve=(0.97 if winter else (0.0, 0.36, 0.36, 0.45, 0.75, 0.97)[rng.integers(6)]),
        neckline=(0.015, 0.02, 0.05, 0.085)[rng.integers(4)],
        hem=0.075 if rng.random() < 0.15 else rng.uniform(-0.05, 0.02),
        lower=lower,
        lower_cloth=lower_cloth,
        lower_length=length,
        flare=rng.uniform(0.01, 0.07),
        coat=maybe(0.65 if winter else 0.12, plain),
        coat_length=(0.02, 0.25, 0.5)[rng.integers(3)],
        coat_open=rng.random() < 0.65,
        socks=worn(0.6 if bare_legs else 0.0, cloth),
        sock_length=(0.86, 0.76, 0.58)[rng.integers(3)],
        shoes=plain(),
        boots=0.62 if winter and rng.random() < 0.4 else 0.0,
        gloves=worn(0.5 if winter else 0.12, plain),
        scarf=worn(0.5 if winter else 0.12, cloth),
        hat=worn(0.5 if winter else 0.3, cloth),
        hat_style="beanie" if winter and rng.random() < 0.7 else ("cap", "sun", "top", "cap")[rng.integers(4)],
        glasses=worn(0.3, lambda: Cloth(*CLOTH[rng.choice([17, 17, 16, 9, 21], 2)])),
    )
