"""python -m rpcnn.data check | show | paint"""

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .check import check_folder, detect_layout
from .cihp import CIHP
from .loader import make_train_loader
from .mhp import MHPv2
from .painted.scene import write_cihp
from .show import contact_sheet
from .transforms import TrainTransform

Root = Annotated[Path, tyro.conf.Positional]


def check(root: Root, split: tuple[str, ...] = ("train", "val")) -> int:
    """Name every fault of a CIHP or MHP-v2 folder and print its statistics.

    Ends with status 1 if the reader has to leave an image out, 0 otherwise.

    Args:
        root: Folder of the data set: it holds Training and Validation (CIHP) or train and val (MHP-v2).
        split: Splits to check: train, val, test; those whose folder is not there are passed over.
    """
    faults = checked = 0
    for name in split:
        try:
            report = check_folder(root, name)
        except FileNotFoundError as missing:
            print(f"{name}: {missing}\n")
            continue
        print(report.text(), end="\n\n")
        checked += 1
        faults += len(report.faults)
    return int(faults > 0 or not checked)


def show(
    root: Root,
    output: Path = Path("samples.png"),
    split: str = "train",
    count: int = 12,
    seed: int = 0,
    short_side: tuple[int, int] = (512, 864),
    max_size: int = 1400,
    flip: bool = True,
) -> int:
    """Draw training samples after augmentation into one picture: input, parts, people and boxes.

    Args:
        root: Folder of the data set: it holds Training and Validation (CIHP) or train and val (MHP-v2).
        output: Picture to write.
        split: train or val.
        count: Number of samples: the first ones that a run with this seed sees.
        seed: Seed of the shuffling and the augmentation.
        short_side: Range from which the short side is drawn, in pixels.
        max_size: Longest side, in pixels.
        flip: Mirror half of the samples.
    """
    dataset = {"cihp": CIHP, "mhpv2": MHPv2}[detect_layout(root)](root, split)
    transform = TrainTransform(short_side, max_size, dataset.labels, 0.5 if flip else 0.0)
    images, targets = next(make_train_loader(dataset, transform, min(count, len(dataset)), seed))
    contact_sheet(images, targets, dataset.labels).save(output)
    print(f"{len(images)} samples of {root} ({split}, {len(dataset)} images): {output}")
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
        root: Folder to write; a set painted there before with other settings is replaced, foreign data never.
        train: Scenes for training.
        val: Scenes for validation.
        short_side: Range of the short side of a scene in pixels; the long side is 4/3 of it.
        difficulty: 0 calm, 1 crowds, clutter, occlusion and poor light.
        seed: Decides every scene.
        workers: Processes (default: one per core, 8 at most).
    """
    write_cihp(root, train=train, val=val, size=short_side, seed=seed, difficulty=difficulty, workers=workers)
    print(f"{train} + {val} scenes: {root}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; returns the exit status."""
    logging.basicConfig(format="%(message)s")
    commands: dict[Literal["check", "show", "paint"], object] = {"check": check, "show": show, "paint": paint}
    try:
        return tyro.extras.subcommand_cli_from_dict(
            commands, prog="python -m rpcnn.data", description="Check, show or paint a data set.", args=arguments
        )
    except (OSError, ValueError) as error:
        print(f"rpcnn.data: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
