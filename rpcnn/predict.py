"""Parse images: ``python -m rpcnn.predict SOURCE… [--weights RUN_OR_FILE] [--output FOLDER] [--save KINDS]``.

SOURCE is an image, a folder of images, a quoted pattern ("photos/**/*.jpg", whose folders below photos are kept below
the output folder), a tar file of images (a WebDataset shard; several: "train-{00..12}.tar"), a video, the number of a
camera or -, the bytes of an image by standard input. Writes files per image <stem>, never over a file that is no
earlier result:
<stem>_overlay.png (parts in color, people, scores), <stem>_labels.png (palette PNG; values are class ids),
<stem>_instances.png (instance ids: 0 background, 1 the best person, …) and <stem>.json (boxes in pixels, three scores).
--save chooses others: docs/predict.md. torchrun shares the images over its processes.
"""

import contextlib
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from rpcnn.commands import UserError, output_folder, run, user_errors
from rpcnn.inference import saving
from rpcnn.inference.job import Job, Outcome, printable
from rpcnn.inference.load import SHIPPED
from rpcnn.inference.pipeline import WINDOW
from rpcnn.inference.predictor import Predictor
from rpcnn.inference.sources import STANDARD_INPUT, Source, check_places, find_pictures, open_shards
from rpcnn.inference.video import require_av
from rpcnn.label_schemes import find_scheme
from rpcnn.pictures import MAX_PIXELS
from rpcnn.runtime import distributed


@dataclass
class Arguments:
    """The command line of rpcnn.predict. Options that are not given keep the value of the model's configuration."""

    source: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders of images, quoted patterns, tar files, videos, numbers of cameras; - takes an image by standard
    input."""
    list: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Text file with the path of an image in each line."""
    recursive: bool = False
    """Also parse the images in the subfolders of folders."""
    weights: str = SHIPPED
    """Run folder or model.safetensors; photo is the model that comes with rpcnn."""
    output: str = "predictions"
    """Folder for the results."""
    save: Annotated[str, tyro.conf.arg(metavar="KINDS")] = ""
    """What to save, separated by commas: overlay, labels, instances, people, cutouts, crops, coco, polygons,
    probabilities (docs/predict.md). <stem>.json always is. Empty: overlay,labels,instances, of videos overlay."""
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
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    """Of convolutions. bf16 is faster on processors and GPUs with units for it, and slower on others."""
    augment: bool = False
    """Test-time augmentation: several scales and mirror images, averaged; tens of times slower."""
    labels: str = ""
    """Results in other labels: lip, atr, schp_atr, viton, sapiens, pascal_person_part, densepose_parts, body, or a TOML
    file (docs/predict.md)."""
    backbone: str = ""
    """package.module:name of a backbone that is not rpcnn's; code that weights name is imported only if you name it."""
    batch_size: int = 1
    """Largest number of images in a batch; only images of the same size after resizing are batched."""
    max_pixels: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = MAX_PIXELS
    """Images with more pixels are not parsed: a file of kilobytes may unpack to gigabytes."""


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
        kinds = saving.checked_kinds(word.strip() for word in options.save.split(",")) if options.save else ()
        device = distributed.start(options.device)
        if STANDARD_INPUT in options.source and distributed.world_size() > 1:
            raise ValueError("source: - cannot be shared over several processes")
        sources, faults = distributed.on_main(lambda: _find(options, kinds))
        with distributed.failing_together():
            job = _job(options, kinds, str(device))
        waiting = distributed.on_main(lambda: _waiting(job, sources)) if options.resume else sources
    settings = job.predictor.config.inference
    if distributed.is_main():
        if settings.augment:
            print(f"rpcnn: test-time augmentation: {job.predictor.pipeline.describe()}")
        if job.short_side and settings.test_short_side > settings.test_long_side_max:
            print(f"rpcnn: {job.limit()}")
    try:
        _parse_all(job, waiting[distributed.rank() :: distributed.world_size()], options.batch_size)
        outcomes = distributed.gather_objects(job.outcome)
        if distributed.is_main():
            _finish(job, options.weights, sources, outcomes, faults, skipped=len(sources) - len(waiting))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"--output: {printable(error)}") from None


def _find(options: Arguments, kinds: Sequence[str]) -> tuple[list[Source], list[str]]:
    """The sources, and the faults of shards among them."""
    sources, faults = open_shards(find_pictures(options.source, options.list, options.recursive))
    if not sources:
        raise ValueError("\n  ".join(map(printable, faults)))
    check_places(sources, pathlib.Path(options.output), kinds)
    if any(source.is_video for source in sources):
        require_av()
    return sources, faults


def _job(options: Arguments, kinds: Sequence[str], device: str) -> Job:
    """The job of a command line."""
    names = ("min_parsing_score", "semantic_mode", "test_short_side", "test_long_side_max")
    changes = {name: value for name in names if (value := getattr(options, name)) is not None}
    predictor = Predictor(
        options.weights,
        device,
        batch_size=options.batch_size,
        progress=sys.stderr.isatty(),
        keep_probabilities="probabilities" in kinds,
        backbone=options.backbone,
        max_pixels=options.max_pixels,
        precision=options.precision or "",
        **changes | ({"augment": True} if options.augment else {}),
    )
    scheme = find_scheme(options.labels) if options.labels else None
    if scheme:
        scheme.table(predictor.label_set)  # an error now, not after the first picture
    output = output_folder(options.output)
    return Job(predictor, output, kinds, scheme, short_side=options.test_short_side is not None)


def _waiting(job: Job, sources: Sequence[Source]) -> list[Source]:
    """The sources that are not done; says how many are, and how many are made again."""
    waiting = [source for source in sources if not job.is_done(source)]
    again = sum(saving.is_record(source.results(job.output)[-1]) for source in waiting)
    print(f"rpcnn: --resume: {len(sources) - len(waiting)} of {len(sources)} images are done")
    if again:
        print(f"rpcnn: --resume: {again} results are not whole, or of other weights, settings or images: made again")
    return waiting


def _parse_all(job: Job, sources: Sequence[Source], batch_size: int) -> None:
    """Parse the sources of this process, pictures before videos. Ctrl-C says how many are left."""
    pictures = [source for source in sources if not source.is_video]
    step = batch_size * WINDOW if batch_size > 1 else 1
    quiet = len(pictures) < 2 or not sys.stderr.isatty() or not distributed.is_main()
    try:
        with (
            tqdm(total=len(pictures), desc="parsing", unit="image", disable=quiet) as bar,
            contextlib.closing(job.shards),
        ):
            for start in range(0, len(pictures), step):
                job.parse(pictures[start : start + step])
                bar.update(len(pictures[start : start + step]))
        for source in sources:
            if source.is_video:
                job.parse_video(source)
    except KeyboardInterrupt:
        left = len(sources) - job.outcome.parsed - len(job.outcome.failed)
        text = f"rpcnn: {left} of {len(sources)} images are left; the same command with --resume goes on"
        print(text, file=sys.stderr)
        raise


def _finish(
    job: Job,
    weights: str,
    sources: Sequence[Source],
    outcomes: Sequence[Outcome],
    faults: Sequence[str],
    skipped: int,
) -> None:
    """What is left to write and to say after the last source of all processes."""
    failed = {place: why for outcome in outcomes for place, why in outcome.failed.items()}
    parsed, limited = sum(outcome.parsed for outcome in outcomes), sum(outcome.limited for outcome in outcomes)
    if "coco" in job.kinds:
        job.write_coco([source for source in sources if source.place not in failed])
    done = f"{parsed} images parsed with {weights}" + (f", {skipped} were done" if skipped else "")
    print(f"rpcnn: {done}; results in {job.output}")
    if limited:
        print(f"rpcnn: {job.limit()}, in {limited} of them")
    if job.scheme and job.scheme.lost:
        print(f"rpcnn: labels of {job.scheme.label_set.name}: {job.scheme.lost}")
    if faults or failed:
        raise SystemExit("rpcnn: not parsed:\n  " + "\n  ".join([*map(printable, faults), *failed.values()]))


if __name__ == "__main__":
    run(main)
