"""The wardrobe: garments cut from the outfits of a folder of assets, sorted by what they are.

An outfit is split into connected pieces, and each piece is named by where it lies on the body and how it hangs
together, so that the top of one outfit can be worn with the trousers of another.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from rpcnn import _rendered

from .assets import AssetFault, ClothFile, diffuse_picture, read_cloth, read_picture
from .bodies import Body

# What the geometry does not tell: a jacket with its shirt in one piece, an overall.
_KNOWN = {"male_elegantsuit01": {"top": "jacket"}, "male_worksuit01": {"top": None, "overall": None}}


@dataclass
class Garment:
    """One kind of piece of one outfit.

    Attributes:
        kind: top, jacket, dress, skirt, shorts, pants, shoes, socks, hat, hair, eyes or brow.
        sex: 0 female, 1 male, None either.
        mesh: its triangles; vertices are those of the whole outfit.
        triangles: int32 [T, 3].
        base: float32 [N, 3], the outfit's vertices on the base shape at rest.
        low, high: of y, at rest.
        reach: of |x|, at rest: how long its sleeves are.
        deleted: bool [body]: the body's vertices that the outfit hides.
        texture: colors, with ambient occlusion in alpha, or coverage for hair.
        has_picture: whether it has colors of its own.
        lightness: mean of its picture's sRGB, in 0..1.
    """

    cloth: ClothFile
    kind: str
    sex: int | None
    mesh: _rendered.Mesh
    triangles: np.ndarray
    base: np.ndarray
    low: float
    high: float
    reach: float
    texture: _rendered.Texture
    has_picture: bool
    lightness: float
    light: np.ndarray | None = None
    """bool [T]: where the picture is light over some area, as the shirt under a jacket; None without a picture."""

    @property
    def deleted(self) -> np.ndarray:
        return self.cloth.deleted

    def fit(self, rest: np.ndarray, blended: np.ndarray | None = None) -> np.ndarray:
        """Its vertices float32 [N, 3] on a shape at rest, or moved by the body's blended transforms."""
        return fit_cloth(self.cloth, rest, blended)


def fit_cloth(cloth: ClothFile, rest: np.ndarray, blended: np.ndarray | None = None) -> np.ndarray:
    """Fit the vertices of a cloth to a shape float32 [N, 3]; see `assets.ClothFile`."""
    grown = np.ones(3, np.float32)
    for axis, (a, b, distance) in cloth.scale.items():
        grown[axis] = abs(rest[a, axis] - rest[b, axis]) / distance
    return _rendered.fit(cloth.body_vertices, cloth.weights, cloth.offsets * grown, rest, blended)


@dataclass
class Wardrobe:
    """All garments by kind, skins, and pictures of eyes."""

    garments: dict[str, list[Garment]] = field(default_factory=dict)
    shoes: list[tuple[Garment, Garment | None]] = field(default_factory=list)
    """Shoes, with their socks where they have some."""
    skins: list["Skin"] = field(default_factory=list)
    eyes: list[_rendered.Texture] = field(default_factory=list)

    def __getitem__(self, kind: str) -> list[Garment]:
        return self.garments.get(kind, [])

    @classmethod
    def open(cls, assets: Path, body: Body) -> "Wardrobe":
        """Read all garments of a folder.

        Raises:
            AssetFault: a file is damaged, or there are no clothes or skins at all.
        """
        made = cls()
        for path in sorted((assets / "clothes").glob("*/*.mhclo")):
            pieces = _pieces(read_cloth(path, body.size), body)
            for garment in pieces:
                made.garments.setdefault(garment.kind, []).append(garment)
            kinds = {garment.kind: garment for garment in pieces}
            if "shoes" in kinds:
                made.shoes.append((kinds["shoes"], kinds.get("socks")))
        for kind, pattern in (
            ("hair", "hair/*/*.mhclo"),
            ("brow", "eyebrows/*/*.mhclo"),
            ("eyes", "eyes/low-poly/*.mhclo"),
        ):
            for path in sorted(assets.glob(pattern)):
                cloth = read_cloth(path, body.size)
                picture = diffuse_picture(cloth.material)
                if picture is None and kind != "eyes":
                    continue  # hair without coverage would be a helmet
                every = np.ones(len(cloth.obj.triangles), bool)
                made.garments.setdefault(kind, []).append(_garment(cloth, body, kind, every, picture))
        made.eyes = [
            _rendered.Texture(read_picture(path)) for path in sorted((assets / "eyes/materials").glob("*.png"))
        ]
        for path in sorted((assets / "skins").glob("*/*")):
            if path.suffix in (".png", ".jpg"):
                made.skins.append(Skin.open(path))
        if not made.skins:
            raise AssetFault(f"{assets}: no pictures of skin in skins/*/")
        for kind in ("top", "pants"):
            if not made[kind]:
                raise AssetFault(f"{assets}: no outfit in clothes/*/*.mhclo has a piece that is a {kind}")
        return made


@dataclass
class Skin:
    """A picture of skin: sex 0 or 1, dark or not, age 0 young, 0.5, 1 old; `mean` is its linear rgb."""

    sex: int
    dark: bool
    age: float
    texture: _rendered.Texture
    mean: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "Skin":
        name = f"{path.parent.name} {path.stem}".lower()
        picture = read_picture(path, largest=1024)
        age = 1.0 if "old" in name else 0.5 if "middle" in name else 0.0
        dark = "african" in name or "dark" in name
        mean = (picture[..., :3].reshape(-1, 3).astype(np.float32) / 255).mean(0) ** 2.2
        return cls(0 if "female" in name else 1, dark, age, _rendered.Texture(picture), mean)


def components(count: int, triangles: np.ndarray) -> np.ndarray:
    """The number of the connected piece that each vertex belongs to: int [count]."""
    label = np.arange(count)
    while True:
        least = label[triangles].min(1)
        new = label.copy()
        for k in range(3):
            np.minimum.at(new, triangles[:, k], least)
        new = new[new]
        if (new == label).all():
            return np.unique(label, return_inverse=True)[1]
        label = new


def _pieces(cloth: ClothFile, body: Body) -> list[Garment]:
    base = fit_cloth(cloth, body.points)
    piece = components(len(base), cloth.obj.triangles)
    of_triangle = piece[cloth.obj.triangles[:, 0]]
    kinds: dict[str, np.ndarray] = {}
    known = _KNOWN.get(cloth.path.stem, {})
    lows: dict[int, tuple[str, float]] = {}
    for k in np.unique(of_triangle):
        kind = _kind(base[piece == k], base[cloth.obj.triangles[of_triangle == k]], body)
        lows[int(k)] = kind, float(base[piece == k, 1].max())
    feet = [high for kind, high in lows.values() if kind == "shoes"]
    for k, (kind, high) in lows.items():
        if kind == "shoes" and len(feet) > 2 and high > (max(feet) + min(feet)) / 2:
            kind = "socks"
        kind = known.get(kind, kind)
        if kind:
            kinds[kind] = kinds.get(kind, np.zeros(len(of_triangle), bool)) | (of_triangle == k)
    picture = diffuse_picture(cloth.material)
    return [_garment(cloth, body, kind, chosen, picture) for kind, chosen in kinds.items()]


def _kind(points: np.ndarray, corners: np.ndarray, body: Body) -> str:
    """Name a piece by its extent. points [n, 3] and the corners [t, 3, 3] of its triangles, on the base shape."""
    low, high = points[:, 1].min(), points[:, 1].max()
    hip, knee, ankle, neck = (body.at(bone)[1] for bone in ("upperleg01.L", "lowerleg01.L", "foot.L", "neck01"))
    below = corners[..., 1].max(1) < hip - 1.7
    joined = bool((below & (corners[..., 0].min(1) < 0) & (corners[..., 0].max(1) > 0)).any())
    if low > neck + 0.5:
        return "hat"
    if high < knee:
        return "shoes"
    if high > hip + 2.8:
        if low > hip - 2.5:
            return "top"
        return "dress" if joined else "overall"
    if joined:
        return "skirt"
    return "pants" if low < (knee + ankle) / 2 else "shorts"


def _garment(cloth: ClothFile, body: Body, kind: str, chosen: np.ndarray, picture: np.ndarray | None) -> Garment:
    triangles = np.ascontiguousarray(cloth.obj.triangles[chosen])
    uv_triangles = np.ascontiguousarray(cloth.obj.uv_triangles[chosen])
    base = fit_cloth(cloth, body.points)
    used = np.unique(triangles)
    mesh = _rendered.Mesh(len(base), triangles, uv_triangles, cloth.obj.uv)
    name = cloth.path.stem.lower()
    sex = 0 if "female" in name or "female" in cloth.tags else 1 if "male" in name or "male" in cloth.tags else None
    pixels = np.full((64, 64, 4), 255, np.uint8) if picture is None else picture.copy()
    lightness, light = 0.5, None
    uv = cloth.obj.uv[uv_triangles].mean(1) % 1
    rows = ((1 - uv[:, 1]) * (pixels.shape[0] - 1)).astype(int)
    columns = (uv[:, 0] * (pixels.shape[1] - 1)).astype(int)
    if picture is not None:
        seen = pixels[rows, columns]
        luminance = seen[:, :3].mean(1).astype(np.float32) / 255
        lightness = float(luminance.mean()) + 0.02
        light = _light_areas(luminance, triangles, len(base)) if kind == "jacket" else None
    if kind in ("hair", "brow"):
        opaque = pixels[..., 3] > 100
        lightness = float(pixels[opaque][:, :3].mean() / 255) + 0.02 if opaque.any() else 0.5
    else:
        pixels[..., 3] = _occlusion(cloth.path, pixels.shape[:2])
    if picture is None:
        lightness = 1.02
    return Garment(
        cloth, kind, sex, mesh, triangles, base,
        float(base[used, 1].min()), float(base[used, 1].max()), float(np.abs(base[used, 0]).max()),
        _rendered.Texture(pixels), picture is not None, lightness, light,
    )  # fmt: skip


def _light_areas(luminance: np.ndarray, triangles: np.ndarray, count: int) -> np.ndarray:
    """bool [T]: lighter than 0.37, after votes of the neighbors, so that a tie belongs to the shirt around it."""
    light = (luminance > 0.37).astype(np.float32)
    for _ in range(5):
        total, parts = np.zeros(count, np.float32), np.full(count, 1e-6, np.float32)
        for k in range(3):
            np.add.at(total, triangles[:, k], light)
            np.add.at(parts, triangles[:, k], 1)
        light = ((total / parts)[triangles].mean(1) > 0.45).astype(np.float32)
    return light > 0


def _occlusion(path: Path, shape: tuple[int, int]) -> np.ndarray:
    found = sorted(path.parent.glob("*_ao.*"))
    picture = read_picture(found[0]) if found else None
    if picture is None:
        return np.full(shape, 255, np.uint8)
    return np.asarray(Image.fromarray(picture[..., 0]).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
