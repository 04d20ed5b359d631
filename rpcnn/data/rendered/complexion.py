"""Skin, hair and beards: which picture of skin a person has, its tone, and hair that fits it. Colors are linear rgb."""

import numpy as np

from rpcnn import _rendered

from .bodies import Person, Posed
from .fabrics import linear, smooth_noise
from .layers import Layer
from .wardrobe import Garment, Skin

FACE = 13

_HAIR = np.array(
    [(0.05, 0.045, 0.04), (0.09, 0.065, 0.05), (0.17, 0.1, 0.06), (0.28, 0.17, 0.09), (0.45, 0.3, 0.16),
     (0.66, 0.5, 0.28), (0.8, 0.68, 0.45), (0.4, 0.16, 0.08), (0.55, 0.54, 0.53), (0.82, 0.8, 0.78)]
)  # fmt: skip
_HAIR_ODDS = (0.2, 0.2, 0.16, 0.12, 0.09, 0.07, 0.05, 0.03, 0.05, 0.03)


def pick_skin(rng: np.random.Generator, person: Person, skins: list[Skin]) -> Skin:
    """The picture of skin that is most like the person, or one of those that are."""
    dark = person.origin[2] > 0.45

    def unlike(skin: Skin) -> float:
        return 3 * (skin.dark != dark) + (skin.sex != person.sex) + abs(skin.age - max(person.age, 0))

    least = min(map(unlike, skins))
    near = [skin for skin in skins if unlike(skin) <= least + 0.6]
    return near[rng.integers(len(near))]


def skin_tint(rng: np.random.Generator, person: Person, skin: Skin) -> np.ndarray:
    """A color matrix float32 [3, 4] that takes the picture's mean to the person's tone."""
    _, asian, african = person.origin
    light, dark = np.array((0.62, 0.38, 0.28)), np.array((0.1, 0.052, 0.033))
    depth = np.clip(0.12 * rng.random() + 0.22 * asian + 1.0 * african + rng.normal(0, 0.09), 0, 1)
    tone = np.exp((1 - depth) * np.log(light) + depth * np.log(dark))
    tone *= (1 + rng.normal(0, 0.05, 3)) * rng.uniform(0.85, 1.25) * (1 - asian * np.array((0, 0, 0.12)))
    tint = np.zeros((3, 4), np.float32)
    tint[:, :3] = np.diag(0.75 * tone / skin.mean + 0.25)
    return tint


def hair_tone(rng: np.random.Generator, person: Person) -> np.ndarray:
    """The hair's color [3]: dark where most people's is, gray with age."""
    tone = _HAIR[rng.choice(len(_HAIR), p=_HAIR_ODDS)]
    if person.origin[1] + person.origin[2] > 0.7 and rng.random() < 0.8:
        tone = _HAIR[rng.integers(0, 2)]
    if person.age > 0.55 and rng.random() < 0.65:
        tone = _HAIR[rng.integers(8, 10)]
    return linear(tone * rng.uniform(0.8, 1.25))


def strands(rng: np.random.Generator, garment: Garment, tone) -> _rendered.Material:
    """Hair of a tone that keeps the picture's light and dark."""
    return _rendered.Material(
        garment.texture, cut_out=True, dyes=np.tile(np.asarray(tone, np.float32), (4, 1)), mean=garment.lightness,
        contrast=float(rng.uniform(1.2, 2.2)), shine=float(rng.uniform(0.01, 0.08)), gloss=float(rng.uniform(8, 20)),
    )  # fmt: skip


def stubble() -> _rendered.Texture:
    """Speckles over the whole skin's picture, in alpha; a beard is cut out of them."""
    rng = np.random.default_rng(79)
    n = 1024
    pixels = np.empty((n, n, 4), np.uint8)
    grain = rng.normal(0, 1, (n, n)).astype(np.float32)
    patches = smooth_noise(rng, n, n, 60)
    pixels[..., :3] = np.clip(140 + 40 * grain, 0, 255).astype(np.uint8)[..., None]
    pixels[..., 3] = np.clip(150 + 70 * grain + 60 * patches, 0, 255)
    return _rendered.Texture(pixels)


def beard(rng: np.random.Generator, posed: Posed, tone, speckles: _rendered.Texture) -> Layer:
    """A beard, a mustache or a goatee: part of the face, as CIHP's annotators take it."""
    body = posed.body
    eye = body.at("eye.L")
    mouth = eye[1] - 0.62
    x, y = np.abs(body.points[:, 0]), body.points[:, 1]
    lips = np.hypot(x / 0.3, (y - mouth) / 0.12) - 1
    front = body.points[:, 2] - (eye[2] - 1.1)
    kind = rng.random()
    if kind < 0.55:  # full
        edge = mouth + rng.uniform(-0.1, 0.24) + 0.8 * np.maximum(x - 0.3, 0) - y
        where = np.minimum(edge, front)
    elif kind < 0.8:  # goatee
        where = np.minimum(0.36 - np.hypot(x, np.maximum(y - mouth, 0) * 1.4), eye[1] - 0.4 - y)
    else:  # mustache
        where = np.minimum(0.4 - x, 0.11 - np.abs(y - mouth - 0.16))
    clip = np.minimum(where, lips).astype(np.float32)
    thick = rng.uniform(0.005, 0.03) if rng.random() < 0.6 else rng.uniform(0.03, 0.16)
    points = posed.points + np.float32(thick) * body.mesh.normals(posed.points)
    dyes = np.tile(np.asarray(tone, np.float32) * rng.uniform(0.6, 1.0), (4, 1))
    looks = _rendered.Material(speckles, cut_out=True, dyes=dyes, mean=0.57, contrast=1.0)
    labels = np.full(len(body.labels), FACE, np.uint8)
    return Layer(body.mesh, points, labels, looks, body.labels == FACE, clip, 0.02)
