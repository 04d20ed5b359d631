"""python -m rpcnn.data check | show | paint | render"""

import logging
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rpcnn.commands import run, user_errors
from rpcnn.config import Options

from .check import check_folder
from .datasets import detect_dataset, open_split
from .files import DataFault
from .loader import make_train_loader
from .painted.scene import write_cihp
from .rendered.dataset import write_rendered
from .show import contact_sheet
from .transforms import TrainTransform

Root = Annotated[Path, tyro.conf.Positional]


def check(
    root: Root,
    split: tuple[str, ...] = ("train", "val"),
    dataset: str = "",
    options: Options = {},  # noqa: B006  (never changed)
) -> int:
    """Name every fault of a data set and print its statistics.

    Ends with status 1 if an image has to be left out or a split has nothing to train on, 0 otherwise.

    Args:
        root: Folder of the data set (docs/datasets.md says what it holds).
        split: Splits to check: train, val, test; those whose files are not there are passed over.
        dataset: Name or package.module:Class as in data.dataset; without, it is recognized by its files.
        options: Options of the data set as in data.options.
    """
    dataset = dataset or detect_dataset(root)
    faults = checked = 0
    for name in split:
        try:
            report = check_folder(root, name, name=dataset, options=options)
        except FileNotFoundError as missing:
            print(f"{name}: {missing}\n")
            continue
        except DataFault as fault:
            print(f"{name}: fault: {fault}\n")
            checked, faults = checked + 1, faults + 1
            continue
        print(report.text(), end="\n\n")
        checked += 1
        faults += len(report.faults) + bool(report.unusable)
    if not checked:
        raise ValueError(f"{root} holds none of the splits {', '.join(split)}")
    return int(faults > 0)


def show(
    root: Root,
    output: Path = Path("."),
    split: str = "train",
    count: int = 12,
    seed: int = 0,
    short_side: tuple[int, int] = (512, 864),
    long_side_max: int = 1400,
    flip: bool = True,
    dataset: str = "",
    options: Options = {},  # noqa: B006  (never changed)
) -> int:
    """Draw training samples after augmentation into one picture: input, parts, people and boxes.

    Args:
        root: Folder of the data set (docs/datasets.md says what it holds).
        output: Folder for the picture, samples.png.
        split: Split of the data set: train or val.
        count: Number of samples: the first ones that a run with this seed sees.
        seed: Seed of the shuffling and the augmentation.
        short_side: Range from which the short side is drawn, in pixels.
        long_side_max: Longest side, in pixels.
        flip: Mirror half of the samples.
        dataset: Name or package.module:Class as in data.dataset; without, it is recognized by its files.
        options: Options of the data set as in data.options.
    """
    _require(count >= 1, "--count", "at least 1", count)
    _require(seed >= 0, "--seed", "at least 0", seed)
    _require_sizes(short_side)
    _require(long_side_max >= 1, "--long-side-max", "at least 1", long_side_max)
    samples = open_split(root, split, name=dataset, options=options)
    transform = TrainTransform(short_side, long_side_max, labels=samples.labels, flip_prob=0.5 if flip else 0.0)
    images, targets = next(make_train_loader(samples, transform, batch_size_global=min(count, len(samples)), seed=seed))
    output.mkdir(parents=True, exist_ok=True)
    contact_sheet(images, targets, samples.labels).save(output / "samples.png")
    print(f"{len(images)} samples of {root} ({split}, {len(samples)} images): {output / 'samples.png'}")
    return 0


def paint(
    root: Root,
    train: int = 400,
    val: int = 60,
    short_side: tuple[int, int] = (192, 256),
    difficulty: float = 0.5,
    seed: int = 0,
    workers: int | None = None,
) -> int:
    """Paint people and write them as a data set in the official CIHP layout.

    Args:
        root: Folder to write, new or empty; a set painted there before with other settings is replaced.
        train: Scenes for training.
        val: Scenes for validation.
        short_side: Range of the short side of a scene in pixels; the long side is 4/3 of it.
        difficulty: 0 calm, 1 crowds, clutter, occlusion and poor light.
        seed: Decides every scene.
        workers: Processes (default: one per core, 8 at most).
    """
    _require(train >= 0, "--train", "at least 0", train)
    _require(val >= 0, "--val", "at least 0", val)
    _require_sizes(short_side, least=32)
    _require(0 <= difficulty <= 1, "--difficulty", "in 0..1", difficulty)
    _require(seed >= 0, "--seed", "at least 0", seed)
    _require(workers is None or workers >= 0, "--workers", "at least 0", workers)
    write_cihp(root, train=train, val=val, size=short_side, seed=seed, difficulty=difficulty, workers=workers)
    print(f"{train} + {val} scenes: {root}")
    return 0


def render(
    root: Root,
    assets: Path,
    backgrounds: Path | None = None,
    train: int = 1000,
    val: int = 100,
    short_side: tuple[int, int] = (224, 288),
    seed: int = 0,
    workers: int | None = None,
) -> int:
    """Render people in 3-D and write them as a data set in the official CIHP layout.

    An interrupted command goes on where it stopped, and a longer set keeps the scenes of a shorter one.

    Args:
        root: Folder to write, new or empty; a set rendered there before with another seed or size is replaced.
        assets: Folder of MakeHuman assets (docs/rendered.md says which files).
        backgrounds: Folder with pictures without people; without, backdrops are painted.
        train: Scenes for training.
        val: Scenes for validation.
        short_side: Range of the short side of a scene in pixels; the long side is 4/3 of it.
        seed: Decides every scene.
        workers: Processes (default: one per core, 8 at most).
    """
    _require(train >= 0, "--train", "at least 0", train)
    _require(val >= 0, "--val", "at least 0", val)
    _require_sizes(short_side, least=32)
    _require(seed >= 0, "--seed", "at least 0", seed)
    _require(workers is None or workers >= 0, "--workers", "at least 0", workers)
    write_rendered(root, assets, backgrounds, train=train, val=val, size=short_side, seed=seed, workers=workers)
    print(f"{train} + {val} scenes: {root}")
    return 0


def _require(condition: bool, option: str, wanted: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{option} must be {wanted}, got {got}")


def _require_sizes(short_side: tuple[int, int], least: int = 1) -> None:
    low, high = short_side
    _require(least <= low <= high, "--short-side", f"LOW HIGH with {least} <= LOW <= HIGH", f"{low} {high}")


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; returns the exit status."""
    logging.basicConfig(format="%(message)s")
    commands: dict[Literal["check", "show", "paint", "render"], object] = {
        "check": check,
        "show": show,
        "paint": paint,
        "render": render,
    }
    with user_errors():
        return tyro.extras.subcommand_cli_from_dict(
            commands, prog="rpcnn data", description="Check, show, paint or render a data set.", args=arguments
        )


if __name__ == "__main__":
    run(main)
