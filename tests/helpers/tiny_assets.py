"""A folder of assets as MakeHuman has them, with a body of some hundred vertices: limbs are square tubes."""

import gzip
import json
from pathlib import Path

import numpy as np
from PIL import Image

from rpcnn.data.rendered.bodies import ORIGINS

_JOINTS = {
    "root": (0, 0.6, 0), "spine05": (0, 1, 0), "spine01": (0, 4, 0), "neck01": (0, 5.9, 0), "neck03": (0, 6.6, 0),
    "head": (0, 7, 0),
}  # fmt: skip
_PAIRS = {
    "eye": (0.35, 7.4, 0.8), "upperarm01": (1.7, 5.2, 0), "lowerarm01": (3.1, 3.5, 0), "wrist": (4.3, 2.4, 0.6),
    "finger2-1": (4.7, 1.9, 0.9), "finger5-1": (4.6, 1.8, 0.5), "finger3-2": (4.9, 1.7, 0.8),
    "upperleg01": (1, 0.5, 0), "lowerleg01": (1.4, -3.7, 0.2), "foot": (1.6, -7.4, 0),
}  # fmt: skip
_PARENTS = {
    "spine05": "root", "spine01": "spine05", "neck01": "spine01", "neck03": "neck01", "head": "neck03", "eye": "head",
    "upperarm01": "spine01", "lowerarm01": "upperarm01", "wrist": "lowerarm01", "finger2-1": "wrist",
    "finger5-1": "wrist", "finger3-2": "finger2-1", "upperleg01": "root", "lowerleg01": "upperleg01",
    "foot": "lowerleg01",
}  # fmt: skip
# bone, where its tube ends, half its width
_TUBES = (
    ("root", (0, 1.2, 0), 1.2), ("spine05", (0, 4, 0), 1.2), ("spine01", (0, 5.8, 0), 1.2),
    ("neck01", (0, 6.7, 0), 0.5), ("head", (0, 8.6, 0), 0.8),
    ("upperarm01", (3.1, 3.5, 0), 0.4), ("lowerarm01", (4.3, 2.4, 0.6), 0.35), ("wrist", (5, 1.6, 0.9), 0.3),
    ("upperleg01", (1.4, -3.7, 0.2), 0.7), ("lowerleg01", (1.6, -7.4, 0), 0.5), ("foot", (1.7, -8, 1.2), 0.4),
)  # fmt: skip


def _bones() -> dict[str, tuple]:
    bones = {name: (np.array(at, float), _PARENTS.get(name)) for name, at in _JOINTS.items()}
    for name, at in _PAIRS.items():
        for side, sign in (("L", 1), ("R", -1)):
            parent = _PARENTS[name]
            bones[f"{name}.{side}"] = np.array(at) * (sign, 1, 1), f"{parent}.{side}" if parent in _PAIRS else parent
    return bones


def _tube(start, end, half: float, first: int):
    """Rings of four points from start to end, and the quads between them as numbers from `first`."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    count = max(int(np.linalg.norm(end - start) / 0.4), 2)
    along = (end - start) / np.linalg.norm(end - start)
    x = np.cross(along, (0, 0, 1.0))
    x /= np.linalg.norm(x)
    z = np.cross(x, along)
    ring = np.stack([half * (s * x + t * z) for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    points = np.concatenate([start + (end - start) * k / count + ring for k in range(count + 1)])
    quads = [
        [first + 4 * k + j, first + 4 * k + (j + 1) % 4, first + 4 * k + 4 + (j + 1) % 4, first + 4 * k + 4 + j]
        for k in range(count) for j in range(4)
    ]  # fmt: skip
    quads.append([first + 4 * count + j for j in range(4)])
    return points, quads


def _write_obj(path: Path, points, quads, group: str = "body"):
    lines = [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in points]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1", f"g {group}"]
    lines += ["f " + " ".join(f"{v + 1}/{k + 1}" for k, v in enumerate(quad)) for quad in quads]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _write_cloth(folder: Path, points, quads, chosen: np.ndarray, offset: float):
    """An outfit of the body's own quads whose points are all chosen, `offset` outside of it."""
    inside = [quad for quad in quads if chosen[quad].all()]
    used = sorted({v for quad in inside for v in quad})
    number = {v: k for k, v in enumerate(used)}
    center = points[used].mean(0) * (1, 0, 1)
    outward = [(points[v] - center) * (1, 0, 1) for v in used]
    outward = [o / (np.linalg.norm(o) + 1e-9) * offset for o in outward]
    name = folder.name
    _write_obj(folder / f"{name}.obj", points[used], [[number[v] for v in quad] for quad in inside])
    lines = [f"name {name}", f"obj_file {name}.obj", f"material {name}.mhmat", "tag Female", "verts 0"]
    lines += [f"{v} {v} {v} 1 0 0 {x:.4f} {y:.4f} {z:.4f}" for v, (x, y, z) in zip(used, outward, strict=True)]
    lines += ["delete_verts", f"{used[0]} - {used[1]}"]
    (folder / f"{name}.mhclo").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.mhmat").write_text(f"diffuseTexture {name}.png\n")
    Image.new("RGB", (8, 8), (160, 90, 60)).save(folder / f"{name}.png")


def write_tiny_assets(root: Path) -> Path:
    """Write the folder and return it."""
    bones = _bones()
    points, quads, owner = np.zeros((0, 3)), [], []
    for bone, end, half in _TUBES:
        for side, sign in (("", 1),) if bone in _JOINTS else ((".L", 1), (".R", -1)):
            part, faces = _tube(bones[bone + side][0], np.array(end) * (sign, 1, 1), half, len(points))
            points, quads = np.concatenate([points, part]), quads + faces
            owner += [bone + side] * len(part)
    joints = {}
    for name, (at, _) in bones.items():  # helpers: a joint is where a vertex of its own lies
        joints[f"{name}____head"] = [len(points)]
        points = np.concatenate([points, at[None]])
    _write_obj(root / "3dobjs/base.obj", points, quads)
    (root / "rigs").mkdir()
    rig = {
        "bones": {name: {"head": f"{name}____head", "parent": parent} for name, (_, parent) in bones.items()},
        "joints": joints,
    }
    (root / "rigs/default.mhskel").write_text(json.dumps(rig))
    weights: dict[str, list] = {}
    for vertex, name in enumerate(owner):
        weights.setdefault(name, []).append([vertex, 1.0])
    for name, (vertex,) in ((name, joints[f"{name}____head"]) for name in bones):
        weights.setdefault(name, []).append([vertex, 1.0])
    (root / "rigs/default_weights.mhw").write_text(json.dumps({"weights": weights}))

    of = np.array(owner + [""] * len(bones))
    trunk = np.isin(of, ("root", "spine05", "spine01", "upperarm01.L", "upperarm01.R")) & (points[:, 1] > 0.9)
    legs = np.char.startswith(of, ("upperleg")) | np.char.startswith(of, "lowerleg") | (of == "root")
    _write_cloth(root / "clothes/shirt", points, quads, trunk, 0.15)
    _write_cloth(root / "clothes/trousers", points, quads, legs & (points[:, 1] < 1.3), 0.12)
    _write_cloth(root / "clothes/boots", points, quads, np.char.startswith(of, "foot"), 0.1)
    _write_cloth(root / "hair/cap", points, quads, (of == "head") & (points[:, 1] > 7.6), 0.1)
    (root / "skins/skin").mkdir(parents=True)
    Image.new("RGB", (8, 8), (200, 150, 120)).save(root / "skins/skin/young_female.png")

    ages, levels = ("child", "young", "old"), ("min", "average", "max")
    names = [f"{origin}-{sex}-{age}" for origin in ORIGINS for sex in ("female", "male") for age in ages]
    names += [f"universal-{sex}-{age}-{m}muscle-{w}weight" for sex in ("female", "male") for age in ages
              for m in levels for w in levels]  # fmt: skip
    names += [f"height/{sex}-{age}-averagemuscle-averageweight-{end}height" for sex in ("female", "male")
              for age in ages for end in ("min", "max")]  # fmt: skip
    for name in names:
        path = root / f"targets/macrodetails/{name}.target.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.write("# a shape\n0 0.01 0 0\n")
    return root
