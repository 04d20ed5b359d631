"""Bodies: shapes of any sex, age, build and origin, their skin's labels, and their movement by a skeleton."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rpcnn import _rendered

from .assets import Skeleton, Targets, read_obj, read_skeleton

ORIGINS = ("caucasian", "asian", "african")
FACE_PARTS = ("head", "forehead", "nose", "mouth", "chin", "cheek", "eyes", "ears", "eyebrows")


@dataclass(frozen=True)
class Person:
    """Who somebody is. sex 0 female .. 1 male, exactly one of them; the others are continuous."""

    sex: int
    origin: tuple[float, float, float]
    """Shares of ORIGINS, sum 1."""
    age: float
    """-1 small child, 0 young, 1 old."""
    weight: float
    muscle: float
    height: float
    """-1..1 each."""

    @property
    def child(self) -> bool:
        return self.age < -0.35


def draw_person(rng: np.random.Generator) -> Person:
    """Draw somebody: one in seven is a child, one in five is old."""
    origin = rng.dirichlet([0.45, 0.35, 0.35])
    kind = rng.choice(3, p=(0.64, 0.22, 0.14))
    age = (rng.uniform(-0.15, 0.35), rng.uniform(0.35, 1), rng.uniform(-0.95, -0.25))[kind]
    weight = rng.uniform(-1, 1) * rng.uniform(0, 1) + (0.15 if kind == 1 else 0)
    return Person(
        int(rng.random() < 0.5),
        tuple(origin),
        float(age),
        float(np.clip(weight, -1, 1)),
        float(rng.uniform(-0.8, 0.8)),
        float(rng.uniform(-0.7, 0.7)),
    )


class Body:
    """The base mesh with its skeleton and CIHP's labels of bare skin.

    Attributes:
        points: float32 [N, 3], at rest: feet down, arms aslant, facing +z, left is +x.
        mesh: the triangles of the body proper, without the helpers that clothes are bound to.
        triangles: int32 [T, 3].
        labels: uint8 [T]: face 13, arms 14 and 15, legs 16 and 17, torso-skin 10.
        hand, foot: bool [T].
    """

    def __init__(self, assets: Path):
        obj = read_obj(assets / "3dobjs/base.obj")
        own = obj.groups == "body"
        if not own.any():
            own[:] = True
        self.points = obj.points
        self.size = len(obj.points)
        self.triangles = np.ascontiguousarray(obj.triangles[own])
        self.uv, self.uv_triangles = obj.uv, np.ascontiguousarray(obj.uv_triangles[own])
        self.mesh = _rendered.Mesh(self.size, self.triangles, self.uv_triangles, self.uv)
        self.vertices = np.unique(self.triangles)
        self.skeleton: Skeleton = read_skeleton(assets / "rigs", self.size)
        self.number = {name: k for k, name in enumerate(self.skeleton.names)}
        self.targets = Targets.find(assets, self.size)
        self.face_targets = [name for part in FACE_PARTS for name in self.targets.names(part)]
        self.expressions = self.targets.names("expression/units/caucasian")
        self.smile = "expression/units/caucasian/mouth-corner-puller"
        self.rest = self.joints(self.points)

        strongest = [self.skeleton.names[bone] for bone in self.skeleton.bones[:, 0]]
        label_of = {name: _skin_label(name) for name in set(strongest)}
        vertex_labels = np.array([label_of[name] for name in strongest], np.uint8)
        throat = float(self.at("neck01")[1]) - 0.34
        vertex_labels[(vertex_labels == 13) & (self.points[:, 1] < throat)] = 10
        self.vertex_labels = vertex_labels
        corner = vertex_labels[self.triangles]
        self.labels = np.where(corner[:, 1] == corner[:, 2], corner[:, 1], corner[:, 0]).astype(np.uint8)
        self.vertex_hand = np.array([bool(re.match(r"wrist|metacarpal|finger", name)) for name in strongest])
        self.vertex_foot = np.array([bool(re.match(r"foot|toe", name)) for name in strongest])
        self.hand = self.vertex_hand[self.triangles].sum(1) >= 2
        self.foot = self.vertex_foot[self.triangles].sum(1) >= 2
        self.centers = self.points[self.triangles].mean(1)

    def joints(self, points: np.ndarray) -> np.ndarray:
        """float32 [B, 3]: where the bones begin in a shape."""
        starts = self.skeleton.head_starts
        sums = np.add.reduceat(points[self.skeleton.head_vertices].astype(np.float64), starts, axis=0)
        return sums / np.diff(starts, append=len(self.skeleton.head_vertices))[:, None]

    def at(self, bone: str) -> np.ndarray:
        """Where a bone begins at rest in the base shape."""
        return self.rest[self.number[bone]]

    def shape(self, rng: np.random.Generator, person: Person) -> np.ndarray:
        """float32 [N, 3]: the person's body at rest, with a face of its own."""
        points = self.points.copy()
        sex = ("female", "male")[person.sex]
        add = self.targets.add
        older = "old" if person.age > 0 else "child"
        for age, share in (("young", 1 - abs(person.age)), (older, abs(person.age))):
            if share < 0.01:
                continue
            for origin, part in zip(ORIGINS, person.origin, strict=True):
                if part > 0.02:
                    add(points, f"macrodetails/{origin}-{sex}-{age}", share * part)
            muscle, weight = person.muscle, person.weight
            strong = (("averagemuscle", 1 - abs(muscle)), ("maxmuscle" if muscle > 0 else "minmuscle", abs(muscle)))
            heavy = (("averageweight", 1 - abs(weight)), ("maxweight" if weight > 0 else "minweight", abs(weight)))
            for m, a in strong:
                for w, b in heavy:
                    add(points, f"macrodetails/universal-{sex}-{age}-{m}-{w}", share * a * b)
            end = "max" if person.height > 0 else "min"
            tall = f"macrodetails/height/{sex}-{age}-averagemuscle-averageweight-{end}height"
            add(points, tall, share * abs(person.height))
        if self.expressions and rng.random() < 0.7:
            for k in rng.choice(len(self.expressions), min(3, len(self.expressions)), replace=False):
                add(points, self.expressions[k], rng.uniform(0, 0.8))
            if self.smile in self.expressions and rng.random() < 0.6:
                add(points, self.smile, rng.uniform(0.3, 1))
        for k in rng.choice(len(self.face_targets), min(14, len(self.face_targets)), replace=False):
            add(points, self.face_targets[k], rng.uniform(0, 0.55))
        return points

    def move(self, points: np.ndarray, rotations: dict[str, np.ndarray]) -> "Posed":
        """Turn the bones of a shape by rotations [3, 3] about where they begin, relative to their parents."""
        heads = self.joints(points)
        count = len(self.skeleton.names)
        moved = np.zeros((count, 3, 4))
        for k, (name, parent) in enumerate(zip(self.skeleton.names, self.skeleton.parents, strict=True)):
            turn = rotations.get(name)
            base = moved[parent] if parent >= 0 else np.eye(3, 4)
            if turn is None:
                moved[k] = base
            else:
                moved[k, :, :3] = base[:, :3] @ turn
                moved[k, :, 3] = base[:, :3] @ (heads[k] - turn @ heads[k]) + base[:, 3]
        transforms = np.ascontiguousarray(moved, np.float32)
        blended, posed = _rendered.skin(points, self.skeleton.bones, self.skeleton.weights, transforms)
        return Posed(self, points, heads, transforms, blended, posed)


@dataclass
class Posed:
    """A shape in a pose: `rest` and `points` float32 [N, 3], `blended` float32 [N, 12]: each vertex's transform."""

    body: Body
    rest: np.ndarray
    joints: np.ndarray
    transforms: np.ndarray
    blended: np.ndarray
    points: np.ndarray

    def joint(self, bone: str) -> np.ndarray:
        """Where a bone begins at rest."""
        return self.joints[self.body.number[bone]]

    def carry(self, bone: str, points) -> np.ndarray:
        """Move points [K, 3] of the rest shape with a bone."""
        transform = self.transforms[self.body.number[bone]]
        return (np.asarray(points) @ transform[:, :3].T + transform[:, 3]).astype(np.float32)


def _skin_label(bone: str) -> int:
    left = bone.endswith(".L")
    if re.match(r"upperarm|lowerarm|wrist|metacarpal|finger", bone):
        return 14 if left else 15
    if re.match(r"upperleg|lowerleg|foot|toe", bone):
        return 16 if left else 17
    if re.match(r"head|jaw|eye|levator|orbicularis|oculi|risorius|temporalis|oris|special|tongue", bone):
        return 13
    return 10
