"""Parses pictures: ``python -m rpcnn.predict SOURCE… [--weights RUN_OR_FILE] [--output FOLDER] [--augment]``.

SOURCE is an image, a folder of images or a quoted pattern ("photos/*.jpg"). For each image <stem>, four files:
<stem>_overlay.png (parts in colour, people, scores), <stem>_labels.png (palette PNG whose values are the class ids),
<stem>_instances.png (0 nobody, 1 the best person, 2 the next …) and <stem>.json (boxes in pixels and the three scores).
"""

import glob
import pathlib
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from . import distributed
from .checkpoint import load_weights
from .inference import describe_augmentation, parse_images
from .results import ParsingResult
from .runtime import trained_model

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}

Picture = str | pathlib.Path | Image.Image | np.ndarray


class Predictor:
    """A trained model, ready for pictures.

    >>> result = Predictor("runs/painted")("photo.jpg")     # doctest: +SKIP
    >>> result.save("out", "photo")                          # doctest: +SKIP

    Args:
        weights: a run folder or a model.safetensors of rpcnn.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        short_side, long_side_max: pixels the image is resized to; None takes those of the model's configuration.
        score_threshold: people enter the combined map from this parsing score on; None likewise.
        semantic_mode: "combine" (Fig. 4), "parsing", "semseg"; None likewise.
        augment: test-time augmentation, 18 passes a picture unless the configuration's test.augment_scales and
            test.augment_flip say otherwise; None likewise.
        batch_size: pictures of a list that go through the network together where their sizes allow it.

    Raises:
        ValueError: the weights do not exist, are not rpcnn's, or the device is not there; batch_size is not positive.
    """

    def __init__(
        self,
        weights: str | pathlib.Path,
        device: str = "auto",
        short_side: int | None = None,
        long_side_max: int | None = None,
        score_threshold: float | None = None,
        semantic_mode: str | None = None,
        augment: bool | None = None,
        batch_size: int = 1,
    ):
        if batch_size < 1:
            raise ValueError(f"Predictor: batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        state, self.config = load_weights(weights)
        self.config.model.backbone_weights = ""
        data, test = self.config.data, self.config.test
        if short_side is not None:
            data.test_short_side = short_side
        if long_side_max is not None:
            data.test_long_side_max = long_side_max
        if score_threshold is not None:
            test.score_threshold = score_threshold
        if semantic_mode is not None:
            test.semantic_mode = semantic_mode
        if augment is not None:
            test.augment = augment
        self.device = distributed.pick_device(device)
        self.model = trained_model(state, self.config, self.device)

    def __call__(self, image: Picture | Sequence[Picture]) -> ParsingResult | list[ParsingResult]:
        """Parses a picture, or a list of them: the results are in its order.

        Args:
            image: a path, a PIL image, or a uint8 RGB array [H, W, 3]. Orientation tags are honoured.

        Raises:
            ValueError: not a readable image, or an array of another shape or dtype.
        """
        if isinstance(image, list | tuple):
            return list(self.stream(image))
        return next(self.stream([image]))

    def stream(self, images: Iterable[Picture], progress: bool = False) -> Iterator[ParsingResult]:
        """The results of any number of pictures, in their order, with a few of them in memory at a time.

        With batch_size 1 each picture is read when its result is asked for, else 4 batch_size pictures at once.
        `progress` draws a bar of the passes of test-time augmentation. Raises as a call.
        """
        pixels = (torch.from_numpy(load_picture(image)).permute(2, 0, 1) for image in images)
        return parse_images(self.model, pixels, self.config, self.device, self.batch_size, progress)


def load_picture(image: Picture) -> np.ndarray:
    """A path, PIL image or array as uint8 RGB [H, W, 3], upright. Raises ValueError, see :class:`Predictor`."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image: must be a uint8 RGB array [H, W, 3], got {image.dtype} {list(image.shape)}")
        return np.ascontiguousarray(image)
    if isinstance(image, str | pathlib.Path):
        try:
            image = Image.open(image)
            image.load()
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"image: {image} cannot be read: {error}") from None
    if not isinstance(image, Image.Image):
        raise ValueError(f"image: must be a path, a PIL image or an array, got {type(image).__name__}")
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))


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
        distributed.only_one("python -m rpcnn.predict")
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
