"""Painted people as a data set, which is painted when it is first opened."""

import functools
from pathlib import Path
from typing import ClassVar

from rpcnn.data.cihp import CIHP
from rpcnn.runtime.distributed import on_main

from .scene import write_cihp


class Painted(CIHP):
    """Painted scenes in a subfolder of `root` whose name has all options. They are painted if it does not exist.

    With several processes, all must open the data set: the main process paints, the others wait.

    Args:
        root: the folder; each combination of options has its own subfolder.
        split: train or val.
        train: number of training scenes.
        val: number of validation scenes.
        short_side: range of the short side of a scene in pixels; the long side is 4/3 of it.
        difficulty: from 0, calm, to 1: crowds, clutter, occlusion and poor light.
        seed: seed of all scenes.

    Raises:
        ValueError: an option is not a number, or out of range.
    """

    splits: ClassVar[dict[str, tuple[str, str]]] = {split: CIHP.splits[split] for split in ("train", "val")}
    layout = ""

    def __init__(
        self,
        root,
        split: str = "train",
        train: int = 400,
        val: int = 60,
        short_side: tuple[int, int] = (192, 256),
        difficulty: float = 0.5,
        seed: int = 0,
    ):
        self.check_split(split)
        options = {
            "train": (train, int),
            "val": (val, int),
            "seed": (seed, int),
            "difficulty": (difficulty, int | float),
        }
        for name, (value, kind) in options.items():
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"Painted: {name} must be a number, got {value!r}")
        if not isinstance(short_side, list | tuple) or [type(side) for side in short_side] != [int, int]:
            raise ValueError(f"Painted: short_side must be two numbers of pixels, got {short_side!r}")
        low, high = short_side
        folder = Path(root) / f"{train}+{val}-{low}to{high}-d{difficulty:g}-s{seed}"
        paint = functools.partial(
            write_cihp, folder, train=train, val=val, size=(low, high), seed=seed, difficulty=difficulty
        )
        on_main(paint)
        super().__init__(folder, split)

    @classmethod
    def detect(cls, root: Path) -> bool:
        return False  # a folder with painted scenes is detected as CIHP
