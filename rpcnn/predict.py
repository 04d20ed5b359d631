"""Parse images: ``python -m rpcnn.predict SOURCE… [--weights RUN_OR_FILE] [--output FOLDER] [--save KINDS]``.

SOURCE is an image, a folder of images, a quoted pattern ("photos/**/*.jpg", whose folders below photos are kept below
the output folder) or -, the bytes of an image by standard input. Writes files per image <stem>, never over a file that
is no earlier result:
<stem>_overlay.png (parts in color, people, scores), <stem>_labels.png (palette PNG; values are class ids),
<stem>_instances.png (instance ids: 0 background, 1 the best person, …) and <stem>.json (boxes in pixels, three scores).
--save chooses others: docs/predict.md. torchrun shares the images over its processes.
"""

import hashlib
import json
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from PIL import Image
from tqdm import tqdm

from rpcnn import __version__
from rpcnn.commands import UserError, output_folder, run, user_errors
from rpcnn.config import to_dict
from rpcnn.inference import coco_file, saving
from rpcnn.inference.pipeline import WINDOW
from rpcnn.inference.predictor import Predictor
from rpcnn.inference.sources import STANDARD_INPUT, Source, check_places, find_pictures
from rpcnn.label_schemes import Scheme, find_scheme
from rpcnn.pictures import MAX_PIXELS
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import checksum


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
    """Images, folders of images, quoted patterns, or - for the bytes of an image by standard input."""
    list: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Text file with the path of an image in each line."""
    recursive: bool = False
    """Also parse the images in the subfolders of folders."""
    weights: str = ""
    """Run folder or model.safetensors; empty takes the newest run under runs/."""
    output: str = "predictions"
    """Folder for the results."""
    save: Annotated[str, tyro.conf.arg(metavar="KINDS")] = ",".join(saving.DEFAULT)
    """What to save, separated by commas: overlay, labels, instances, people, cutouts, crops, coco, polygons,
    probabilities (docs/predict.md). <stem>.json always is."""
    resume: bool = False
    """Skip images whose results are there, whole, and of the same weights and settings."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    min_parsing_score: Annotated[float | None, tyro.conf.arg(metavar="0..1")] = None
    """Smallest parsing score of the people in the combined map."""
    semantic_mode: Literal["combine", "parsing", "semseg"] | None = None
    """How the label map is made (Table 6)."""
    test_short_side: Annotated[int | None, tyro.conf.arg(aliases=["--short-side"], metavar="PIXELS")] = None
    """Short side in pixels that images are resized to, as far as --test-long-side-max allows."""
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


@dataclass
class Outcome:
    """What became of the images of a process."""

    parsed: int = 0
    failed: dict[pathlib.PurePath, str] = field(default_factory=dict)
    """Place to reason."""
    limited: int = 0
    """Images whose short side is smaller than asked for, because the long side is limited."""


class Command:
    """Parses images with one predictor and saves the results.

    Args:
        options: of the command line.
        kinds: what to save.
        device: of this process.

    Raises:
        ValueError: an option has no sense, or there are no such weights.
    """

    def __init__(self, options: Arguments, kinds: Sequence[str], device: str):
        self.options, self.kinds, self.weights = options, kinds, options.weights or newest_run()
        names = ("min_parsing_score", "semantic_mode", "test_short_side", "test_long_side_max")
        changes = {name: value for name in names if (value := getattr(options, name)) is not None}
        self.predictor = Predictor(
            self.weights,
            device,
            batch_size=options.batch_size,
            progress=sys.stderr.isatty(),
            keep_probabilities="probabilities" in kinds,
            backbone=options.backbone,
            **changes | ({"augment": True} if options.augment else {}),
        )
        self.scheme = find_scheme(options.labels) if options.labels else None
        self.label_set = self.scheme.label_set if self.scheme else self.predictor.label_set
        self.origin = _origin(self.predictor, self.scheme, kinds)
        self.output = output_folder(options.output)
        self.outcome = Outcome()

    def is_done(self, picture: Source) -> bool:
        """Whether the results of a picture are there, whole, and as they would be."""
        return saving.is_saved(self.output / picture.place.parent, picture.place.name, self.origin_of(picture))

    def origin_of(self, picture: Source) -> dict:
        """What the results of a picture depend on."""
        return self.origin | {"source": picture.state()}

    def parse(self, pictures: Sequence[Source]) -> None:
        """Parse images that go into one window, and save the results."""
        readable = {}
        for picture in pictures:
            try:
                readable[picture] = picture.load(self.options.max_pixels)
            except ValueError as error:
                self.outcome.failed[picture.place] = _printable(error)
        threshold = self.predictor.config.inference.min_parsing_score
        for (picture, pixels), result in zip(readable.items(), self.predictor(list(readable.values())), strict=True):
            result = result.remap(self.scheme) if self.scheme else result
            folder, name = self.output / picture.place.parent, _printable(picture.path)
            try:
                saving.save(
                    result,
                    folder,
                    picture.place.name,
                    Image.fromarray(pixels),
                    self.kinds,
                    origin=self.origin_of(picture),
                    file_name=(picture.place.parent / picture.path.name).as_posix(),
                )
            except OSError as error:
                raise UserError(f"--output: {_printable(error)}") from None
            self.outcome.parsed += 1
            self.outcome.limited += self.is_limited(pixels.shape[:2])
            shown = int((result.scores >= threshold).sum())
            tqdm.write(f"{name}: {shown} people with a score of at least {threshold:g}, {len(result)} found")

    def is_limited(self, size: Sequence[int]) -> bool:
        """Whether --test-short-side was given and is not reached by an image of this size."""
        settings = self.predictor.config.inference
        asked = self.options.test_short_side is not None
        return asked and settings.test_short_side * max(size) > settings.test_long_side_max * min(size)

    def limit(self) -> str:
        """Why an image may be smaller than --test-short-side asks."""
        settings = self.predictor.config.inference
        short, long = settings.test_short_side, settings.test_long_side_max
        return f"--test-short-side {short} is not reached: the long side is at most {long} (--test-long-side-max)"

    def write_coco(self, pictures: Sequence[Source], failed: dict[pathlib.PurePath, str]) -> None:
        """Write the COCO file of all pictures but those that failed."""
        paths = [picture.results(self.output, ["coco"])[0] for picture in pictures if picture.place not in failed]
        records = (json.loads(path.read_bytes()) for path in paths)
        path = self.output / coco_file.NAME
        with user_errors(), saving.replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
            file.writelines(coco_file.merge(records, self.label_set))


def _origin(predictor: Predictor, scheme: Scheme | None, kinds: Sequence[str]) -> dict:
    """What all results of a command depend on: the weights, and everything that is set."""
    labels = None if scheme is None else [scheme.label_set.to_dict(), scheme.table(predictor.label_set).tolist()]
    settings = json.dumps([__version__, to_dict(predictor.config), str(predictor.pipeline.dtype), labels, list(kinds)])
    state = {name: value.cpu() for name, value in predictor.pipeline.model.state_dict().items()}
    return {"weights": checksum(state), "settings": hashlib.sha256(settings.encode()).hexdigest()[:16]}


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn predict", description=__doc__)
    try:
        _main(options)
    finally:
        distributed.stop()


def _main(options: Arguments) -> None:
    with user_errors():
        if not options.source and not options.list:
            raise ValueError("source: name at least one image, folder or pattern")
        if options.max_pixels < 1:
            raise ValueError(f"--max-pixels must be at least 1, got {options.max_pixels}")
        kinds = saving.checked_kinds(word.strip() for word in options.save.split(","))
        device = distributed.start(options.device)
        if STANDARD_INPUT in options.source and distributed.world_size() > 1:
            raise ValueError("source: - cannot be shared over several processes")

        def find() -> list[Source]:
            pictures = find_pictures(options.source, options.list, options.recursive)
            check_places(pictures, pathlib.Path(options.output), kinds)
            return pictures

        pictures = distributed.on_main(find)
        with distributed.failing_together():
            command = Command(options, kinds, str(device))
        waiting = distributed.on_main(lambda: _waiting(command, pictures)) if options.resume else pictures
    settings = command.predictor.config.inference
    say = print if distributed.is_main() else lambda text: None
    if settings.augment:
        say(f"rpcnn: test-time augmentation: {command.predictor.pipeline.describe()}")
    if options.test_short_side and settings.test_short_side > settings.test_long_side_max:
        say(f"rpcnn: {command.limit()}")
    _parse_all(command, waiting[distributed.rank() :: distributed.world_size()])
    outcomes = distributed.gather_objects(command.outcome)
    if distributed.is_main():
        _finish(command, pictures, outcomes, skipped=len(pictures) - len(waiting))


def _waiting(command: Command, pictures: Sequence[Source]) -> list[Source]:
    """The pictures that are not done, and in two lines, how many are and how many are made again."""
    waiting = [picture for picture in pictures if not command.is_done(picture)]
    again = sum(saving.is_record(picture.results(command.output)[-1]) for picture in waiting)
    print(f"rpcnn: --resume: {len(pictures) - len(waiting)} of {len(pictures)} images are done")
    if again:
        print(f"rpcnn: --resume: {again} results are not whole, or of other weights, settings or images: made again")
    return waiting


def _parse_all(command: Command, pictures: Sequence[Source]) -> None:
    """Parse the pictures of this process. Ctrl-C says how many are left."""
    batch = command.options.batch_size
    step = batch * WINDOW if batch > 1 else 1
    quiet = len(pictures) < 2 or not sys.stderr.isatty() or not distributed.is_main()
    try:
        with tqdm(total=len(pictures), desc="parsing", unit="image", disable=quiet) as bar:
            for start in range(0, len(pictures), step):
                window = pictures[start : start + step]
                command.parse(window)
                bar.update(len(window))
    except KeyboardInterrupt:
        left = len(pictures) - command.outcome.parsed - len(command.outcome.failed)
        print(
            f"rpcnn: {left} of {len(pictures)} images are left; the same command with --resume goes on", file=sys.stderr
        )
        raise


def _finish(command: Command, pictures: Sequence[Source], outcomes: Sequence[Outcome], skipped: int) -> None:
    """What is left to write and to say after the last picture of all processes."""
    failed = {place: why for outcome in outcomes for place, why in outcome.failed.items()}
    parsed, limited = sum(outcome.parsed for outcome in outcomes), sum(outcome.limited for outcome in outcomes)
    if "coco" in command.kinds:
        command.write_coco(pictures, failed)
    done = f"{parsed} images parsed with {command.weights}" + (f", {skipped} were done" if skipped else "")
    print(f"rpcnn: {done}; results in {command.output}")
    if limited:
        print(f"rpcnn: {command.limit()}, in {limited} of them")
    if command.scheme and command.scheme.lost:
        print(f"rpcnn: labels of {command.scheme.label_set.name}: {command.scheme.lost}")
    if failed:
        raise SystemExit("rpcnn: not parsed:\n  " + "\n  ".join(failed.values()))


def _printable(value: object) -> str:
    """The text of a value; bytes of a file name that are no UTF-8 as \\udcXX, since printing them raises."""
    return str(value).encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    run(main)
