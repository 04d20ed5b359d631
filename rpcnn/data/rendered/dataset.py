"""Rendered people as a data set whose scenes are made while training, and as files."""

import functools
from pathlib import Path
from typing import ClassVar

import numpy as np

from rpcnn.data.cihp_layout import write_scenes
from rpcnn.data.dataset import PeopleDataset
from rpcnn.data.sample import Sample
from rpcnn.labels import CIHP as CIHP_LABELS

from .assets import check_folder

GENERATOR_VERSION = 4
"""Increased when the same seed gives another image, so that older sets are rendered again."""


@functools.cache
def renderer(assets: str, backgrounds: str | None):
    """The renderer of this process for a folder of assets; opening it takes seconds.

    Raises:
        AssetFault: an asset is missing or damaged.
        ValueError: rpcnn was built without its compiled modules, or `backgrounds` holds no picture.
    """
    try:
        from .scene import Renderer
    except ImportError as error:
        raise ValueError(f"people cannot be rendered without rpcnn's compiled modules: {error}") from None
    return Renderer(assets, backgrounds)


def render_maps(
    seed: tuple[int, ...], height: int, width: int, assets: str, backgrounds: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render a scene; see :meth:`rpcnn.data.rendered.scene.Renderer.maps`."""
    return renderer(assets, backgrounds).maps(seed, height, width)


def write_rendered(
    root,
    assets: Path,
    backgrounds: Path | None = None,
    train: int = 1000,
    val: int = 100,
    size: tuple[int, int] = (224, 288),
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Render scenes and write them in the official CIHP layout; see :func:`rpcnn.data.cihp_layout.write_scenes`.

    Scenes that were rendered into `root` before with the same arguments are kept.

    Raises:
        AssetFault: an asset is missing or damaged.
        ValueError: `backgrounds` holds no picture, or `root` something that this function did not write.
    """
    places = str(Path(assets).resolve()), str(Path(backgrounds).resolve()) if backgrounds else None
    renderer(*places)  # before the workers start, so that they share it, and so that bad assets end here
    return write_scenes(
        root,
        functools.partial(render_maps, assets=places[0], backgrounds=places[1]),
        mark="rendered.json",
        settings={"generator": GENERATOR_VERSION, "assets": places[0], "backgrounds": places[1]},
        train=train,
        val=val,
        size=size,
        seed=seed,
        workers=workers,
        keep=True,
    )


class Rendered(PeopleDataset):
    """Rendered scenes, made when they are loaded: no files, and any number of them.

    `root` is the folder of MakeHuman assets; docs/rendered.md says which files are wanted.

    Args:
        root: the folder of assets.
        split: train or val.
        train: number of training scenes.
        val: number of validation scenes.
        short_side: range of the short side of a scene in pixels; the long side is 4/3 of it.
        backgrounds: folder with pictures without people; "" paints backdrops.
        seed: seed of all scenes.

    Raises:
        AssetFault: `root` has no body, or, when a scene is made, an asset is damaged.
        ValueError: an option is not a number, or out of range.
    """

    labels = CIHP_LABELS
    splits: ClassVar[tuple[str, ...]] = ("train", "val")

    def __init__(
        self,
        root,
        split: str = "train",
        train: int = 20000,
        val: int = 200,
        short_side: tuple[int, int] = (224, 288),
        backgrounds: str = "",
        seed: int = 0,
    ):
        self.check_split(split)
        for name, value in (("train", train), ("val", val), ("seed", seed)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"Rendered: {name} must be a number, 0 or more, got {value!r}")
        if not isinstance(short_side, list | tuple) or [type(side) for side in short_side] != [int, int]:
            raise ValueError(f"Rendered: short_side must be two numbers of pixels, got {short_side!r}")
        if not 32 <= short_side[0] <= short_side[1] <= 3072:
            raise ValueError(f"Rendered: short_side must be LOW HIGH with 32 <= LOW <= HIGH <= 3072, got {short_side}")
        self.assets = str(check_folder(Path(root)).resolve())
        self.backgrounds = str(Path(backgrounds).resolve()) if backgrounds else None
        self.split, self.seed, self.count = self.splits.index(split), seed, train if split == "train" else val
        rng = np.random.default_rng((seed, self.split, 2))
        short = rng.integers(short_side[0], short_side[1] + 1, self.count)
        wide = rng.random(self.count) < 0.6
        self._sizes = np.stack([np.where(wide, short, short * 4 // 3), np.where(wide, short * 4 // 3, short)], 1)

    def __len__(self) -> int:
        return self.count

    @functools.cached_property
    def ids(self) -> list[str]:
        return [f"{k:07d}" for k in range(1, self.count + 1)]

    @property
    def sizes(self) -> np.ndarray:
        return self._sizes.astype(np.int32)

    @property
    def faults(self) -> dict[str, str]:
        return {}

    def load(self, index: int) -> Sample:
        height, width = (int(side) for side in self._sizes[index])
        seed = (self.seed, self.split, index + 1, 1)
        return renderer(self.assets, self.backgrounds).sample(seed, height, width, self.ids[index])
