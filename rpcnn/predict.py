"""Parse images: ``python -m rpcnn.predict SOURCE… [--weights RUN_OR_FILE] [--output FOLDER] [--augment]``.

SOURCE is an image, a folder of images or a quoted pattern ("photos/*.jpg"). Writes four files per image <stem>:
<stem>_overlay.png (parts in color, people, scores), <stem>_labels.png (palette PNG; values are class ids),
<stem>_instances.png (instance ids: 0 background, 1 the best person, …) and <stem>.json (boxes in pixels, three scores).
"""

import glob
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from rpcnn.commands import output_folder, run, user_errors
from rpcnn.inference.pipeline import WINDOW
from rpcnn.inference.predictor import Predictor
from rpcnn.pictures import load_picture
from rpcnn.runtime import distributed

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}


def find_pictures(sources: Sequence[str]) -> list[pathlib.Path]:
    """Find the image files of all sources, in order and without duplicates.

    Args:
        sources: files, folders (without their subfolders) and patterns.

    Raises:
        ValueError: a source matches no image.
    """
    found: dict[pathlib.Path, None] = {}
    for source in sources:
        path = pathlib.Path(source)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            matches = [path]
        else:
            matches = [pathlib.Path(match) for match in sorted(glob.glob(source, recursive=True))]
        if not matches:
            raise ValueError(f"source: {source!r} is no image, folder of images or pattern that matches any")
        found.update(dict.fromkeys(matches))
    return list(found)


def check_names(pictures: Sequence[pathlib.Path]) -> None:
    """Raise ValueError if two pictures would write the same files."""
    by_stem: dict[str, pathlib.Path] = {}
    for path in pictures:
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise ValueError(
                f"source: {other} and {path} would write the same files; parse them with two commands and two --output"
            )


def newest_run() -> str:
    """The run folder under runs/ with the newest weights. Raises ValueError if there is none."""
    candidates = sorted(pathlib.Path("runs").glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if not candidates:
        raise ValueError(
            "weights: no runs/*/model.safetensors here; train with `python -m rpcnn.train` or give --weights"
        )
    return str(candidates[-1].parent)


@dataclass
class Arguments:
    """The command line of rpcnn.predict. Options that are not given keep the value of the model's configuration."""

    source: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders of images or quoted patterns."""
    weights: str = ""
    """Run folder or model.safetensors; empty takes the newest run under runs/."""
    output: str = "predictions"
    """Folder for the results."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    min_parsing_score: Annotated[float | None, tyro.conf.arg(metavar="0..1")] = None
    """Smallest parsing score of the people in the combined map."""
    semantic_mode: Literal["combine", "parsing", "semseg"] | None = None
    """How the label map is made (Table 6)."""
    test_short_side: Annotated[int | None, tyro.conf.arg(aliases=["--short-side"], metavar="PIXELS")] = None
    """Short side in pixels that images are resized to."""
    test_long_side_max: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Largest long side in pixels after resizing."""
    augment: bool = False
    """Test-time augmentation: several scales and mirror images, averaged; tens of times slower."""
    backbone: str = ""
    """package.module:name of a backbone that is not rpcnn's; code that weights name is imported only if you name it."""
    batch_size: int = 1
    """Largest number of images in a batch; only images of the same size after resizing are batched."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn predict", description=__doc__)
    names = ("min_parsing_score", "semantic_mode", "test_short_side", "test_long_side_max")
    changes = {name: value for name in names if (value := getattr(options, name)) is not None}
    with user_errors():
        distributed.only_one("rpcnn predict")
        if not options.source:
            raise ValueError("source: name at least one image, folder or pattern")
        pictures = find_pictures(options.source)
        check_names(pictures)
        weights = options.weights or newest_run()
        predictor = Predictor(
            weights,
            options.device,
            batch_size=options.batch_size,
            progress=sys.stderr.isatty(),
            backbone=options.backbone,
            **changes | ({"augment": True} if options.augment else {}),
        )
        folder = output_folder(options.output)
    if predictor.config.inference.augment:
        print(f"rpcnn: test-time augmentation: {predictor.pipeline.describe()}")
    failed = []
    threshold = predictor.config.inference.min_parsing_score
    with tqdm(total=len(pictures), desc="parsing", unit="image", disable=len(pictures) < 2) as bar:
        step = options.batch_size * WINDOW if options.batch_size > 1 else 1
        for start in range(0, len(pictures), step):
            readable = {}
            for path in pictures[start : start + step]:
                try:
                    readable[path] = load_picture(path)
                except ValueError as error:
                    failed.append(str(error))
                    bar.update()
            for (path, pixels), result in zip(readable.items(), predictor(list(readable.values())), strict=True):
                result.save(folder, path.stem, pixels)
                shown = int((result.scores >= threshold).sum())
                tqdm.write(f"{path}: {shown} people with a score of at least {threshold:g}, {len(result)} found")
                bar.update()
    print(f"rpcnn: {len(pictures) - len(failed)} images parsed with {weights}; results in {folder}")
    if failed:
        raise SystemExit("rpcnn: not parsed:\n  " + "\n  ".join(failed))


if __name__ == "__main__":
    run(main)
