"""Parse images: ``python -m rpcnn.predict SOURCE… [--weights RUN_OR_FILE] [--output FOLDER] [--augment]``.

SOURCE is an image, a folder of images or a quoted pattern ("photos/**/*.jpg", whose folders below photos are kept below
the output folder). Writes four files per image <stem>, never over a file that is no earlier result:
<stem>_overlay.png (parts in color, people, scores), <stem>_labels.png (palette PNG; values are class ids),
<stem>_instances.png (instance ids: 0 background, 1 the best person, …) and <stem>.json (boxes in pixels, three scores).
"""

import glob
import itertools
import os
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import tyro
from tqdm import tqdm

from rpcnn.commands import UserError, output_folder, run, user_errors
from rpcnn.inference.pipeline import WINDOW
from rpcnn.inference.predictor import Predictor
from rpcnn.inference.results import is_result, result_names
from rpcnn.label_schemes import find_scheme
from rpcnn.pictures import MAX_PIXELS, SUFFIXES, load_picture
from rpcnn.runtime import distributed


class Source(NamedTuple):
    """A picture file, and where its results go below the output folder: the folders below its source, and its stem."""

    path: pathlib.Path
    place: pathlib.PurePath

    def results(self, output: pathlib.Path) -> list[pathlib.Path]:
        """The files that parsing it writes."""
        return [output / self.place.parent / name for name in result_names(self.place.name)]


def find_pictures(sources: Sequence[str]) -> list[Source]:
    """Find the image files of all sources, in order and without duplicates.

    Results of an earlier `rpcnn predict` among the files of a folder or pattern are left out.

    Args:
        sources: files, folders (without their subfolders) and patterns. The folders that a pattern's wildcards match
            are kept below the output folder.

    Raises:
        ValueError: a source matches no image.
    """
    found: dict[str, Source] = {}
    for source in sources:
        path = pathlib.Path(source)
        if path.is_file():
            matches, base = [path], path.parent
        elif path.is_dir():
            matches, base = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES], path
        else:
            matches, base = [pathlib.Path(match) for match in sorted(glob.glob(source, recursive=True))], _base(path)
            matches = [p for p in matches if p.is_file()]
        if not path.is_file():
            matches = [p for p in matches if not is_result(p)]
        if not matches:
            raise ValueError(f"source: {source!r} is no image, folder of images or pattern that matches any")
        for match in matches:
            found.setdefault(os.path.abspath(match), Source(match, match.relative_to(base).with_suffix("")))
    return list(found.values())


def _base(pattern: pathlib.Path) -> pathlib.Path:
    """The folders of a pattern before its first wildcard."""
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1])
    return pathlib.Path(*fixed)


def check_places(pictures: Sequence[Source], output: pathlib.Path) -> None:
    """Raise ValueError if two pictures would write one file, or one would replace a file that is no result."""
    writers: dict[pathlib.Path, pathlib.Path] = {}
    for picture in pictures:
        for path in picture.results(output):
            other = writers.setdefault(path, picture.path)
            if other != picture.path:
                raise ValueError(
                    f"source: {other} and {picture.path} would both write {path}; parse them with two commands and two "
                    "--output"
                )
    foreign = [path for path in writers if os.path.lexists(path) and not (path.is_file() and is_result(path))]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise ValueError(f"--output: {foreign[0]}{more} would be replaced and is no result of predict; choose another")


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
    labels: str = ""
    """Results in other labels: lip, atr, pascal_person_part, body, or a TOML file (docs/predict.md)."""
    backbone: str = ""
    """package.module:name of a backbone that is not rpcnn's; code that weights name is imported only if you name it."""
    batch_size: int = 1
    """Largest number of images in a batch; only images of the same size after resizing are batched."""
    max_pixels: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = MAX_PIXELS
    """Images with more pixels are not parsed: a file of kilobytes may unpack to gigabytes."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn predict", description=__doc__)
    names = ("min_parsing_score", "semantic_mode", "test_short_side", "test_long_side_max")
    changes = {name: value for name in names if (value := getattr(options, name)) is not None}
    with user_errors():
        distributed.only_one("rpcnn predict")
        if not options.source:
            raise ValueError("source: name at least one image, folder or pattern")
        if options.max_pixels < 1:
            raise ValueError(f"--max-pixels must be at least 1, got {options.max_pixels}")
        pictures = find_pictures(options.source)
        check_places(pictures, pathlib.Path(options.output))
        weights = options.weights or newest_run()
        predictor = Predictor(
            weights,
            options.device,
            batch_size=options.batch_size,
            progress=sys.stderr.isatty(),
            backbone=options.backbone,
            **changes | ({"augment": True} if options.augment else {}),
        )
        scheme = find_scheme(options.labels) if options.labels else None
        if scheme:
            scheme.table(predictor.label_set)  # an error now, not after the first picture
        folder = output_folder(options.output)
    if predictor.config.inference.augment:
        print(f"rpcnn: test-time augmentation: {predictor.pipeline.describe()}")
    failed = []
    threshold = predictor.config.inference.min_parsing_score
    with tqdm(total=len(pictures), desc="parsing", unit="image", disable=len(pictures) < 2) as bar:
        step = options.batch_size * WINDOW if options.batch_size > 1 else 1
        for start in range(0, len(pictures), step):
            readable = {}
            for picture in pictures[start : start + step]:
                try:
                    readable[picture] = load_picture(picture.path, options.max_pixels)
                except ValueError as error:
                    failed.append(_printable(error))
                    bar.update()
            for (picture, pixels), result in zip(readable.items(), predictor(list(readable.values())), strict=True):
                result = result.remap(scheme) if scheme else result
                try:
                    result.save(folder / picture.place.parent, picture.place.name, pixels)
                except OSError as error:
                    raise UserError(f"--output: {_printable(error)}") from None
                shown = int((result.scores >= threshold).sum())
                name = _printable(picture.path)
                tqdm.write(f"{name}: {shown} people with a score of at least {threshold:g}, {len(result)} found")
                bar.update()
    print(f"rpcnn: {len(pictures) - len(failed)} images parsed with {weights}; results in {folder}")
    if scheme and scheme.lost:
        print(f"rpcnn: labels of {scheme.label_set.name}: {scheme.lost}")
    if failed:
        raise SystemExit("rpcnn: not parsed:\n  " + "\n  ".join(failed))


def _printable(value: object) -> str:
    """The text of a value; bytes of a file name that are no UTF-8 as \\udcXX, since printing them raises."""
    return str(value).encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    run(main)
