"""Parses pictures: ``python -m rpcnn.predict SOURCE… [--weights RUN_OR_FILE] [--output FOLDER] [--augment]``.

SOURCE is an image, a folder of images or a quoted pattern ("photos/*.jpg"). For each image <stem>, four files:
<stem>_overlay.png (parts in colour, people, scores), <stem>_labels.png (palette PNG whose values are the class ids),
<stem>_instances.png (0 nobody, 1 the best person, 2 the next …) and <stem>.json (boxes in pixels and the three scores).
"""

import glob
import pathlib
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import tyro
from tqdm import tqdm

from rpcnn.inference.pipeline import describe_augmentation
from rpcnn.inference.predictor import Predictor, load_picture

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}


def find_pictures(sources: Sequence[str]) -> list[pathlib.Path]:
    """The image files that sources mean: files, folders (not their subfolders) and patterns, in order, once each.

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


def newest_run() -> str:
    """The run folder under runs/ with the newest weights. Raises ValueError where there is none."""
    candidates = sorted(pathlib.Path("runs").glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if not candidates:
        raise ValueError(
            "weights: no runs/*/model.safetensors here; train with `python -m rpcnn.train` or give --weights"
        )
    return str(candidates[-1].parent)


@dataclass
class Arguments:
    """The command line of rpcnn.predict."""

    source: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders of images or quoted patterns."""
    weights: str = ""
    """Run folder or model.safetensors; empty takes the newest run under runs/."""
    output: str = "predictions"
    """Folder for the results."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    score_threshold: Annotated[float | None, tyro.conf.arg(metavar="0..1")] = None
    """People enter the combined map from this parsing score on; default: the model's configuration."""
    semantic_mode: Literal["combine", "parsing", "semseg"] | None = None
    """How the label map is made (Table 6); default: the model's configuration."""
    short_side: int | None = None
    """Pixels of the short side the image is resized to; default: the model's configuration."""
    augment: bool = False
    """Test-time augmentation: several scales and mirror images, averaged; tens of times slower."""
    batch_size: int = 1
    """Images that go through the network together, where they have the same size after resizing."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = tyro.cli(Arguments, args=arguments, prog="python -m rpcnn.predict", description=__doc__)
    try:
        if not options.source:
            raise ValueError("source: name at least one image, folder or pattern")
        pictures = find_pictures(options.source)
        weights = options.weights or newest_run()
        predictor = Predictor(
            weights,
            options.device,
            short_side=options.short_side,
            score_threshold=options.score_threshold,
            semantic_mode=options.semantic_mode,
            augment=options.augment or None,
            batch_size=options.batch_size,
        )
    except ValueError as error:
        raise SystemExit(f"rpcnn: {error}") from None
    folder = pathlib.Path(options.output)
    if predictor.config.test.augment:
        print(f"rpcnn: {describe_augmentation(predictor.config)}")
    failed, waiting = [], deque()

    def readable() -> Iterator[np.ndarray]:
        for path in pictures:
            try:
                pixels = load_picture(path)
            except ValueError as error:
                failed.append(f"{error}")
                bar.update()
                continue
            waiting.append((path, pixels))
            yield pixels

    threshold = predictor.config.test.score_threshold
    with tqdm(total=len(pictures), desc="parsing", unit="image", disable=len(pictures) < 2) as bar:
        for result in predictor.stream(readable(), progress=sys.stderr.isatty()):
            path, pixels = waiting.popleft()
            result.save(folder, path.stem, pixels)
            shown = int((result.scores >= threshold).sum())
            tqdm.write(f"{path}: {shown} people with a score of at least {threshold:g}, {len(result)} found")
            bar.update()
    print(f"rpcnn: {len(pictures) - len(failed)} images parsed with {weights}; results in {folder}")
    if failed:
        raise SystemExit("rpcnn: not parsed:\n  " + "\n  ".join(failed))


if __name__ == "__main__":
    main()
