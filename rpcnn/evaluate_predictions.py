"""Evaluates anybody's predictions: ``python -m rpcnn.evaluate --predictions DIR --data-root DIR``.

DIR of --predictions is in one of the formats of docs/formats.md (detected by its files), DIR of --data-root a data set
of docs/datasets.md. Prints every metric of rpcnn.metrics in one table; --output also writes them as results.json.
Images are read by several processes, one at a time each: memory does not grow with the set.
"""

import gc
import json
import pathlib
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from rpcnn.commands import user_errors
from rpcnn.config import Options
from rpcnn.data.datasets import open_split
from rpcnn.evaluation.predictions import evaluate_predictions
from rpcnn.formats import detect_format, make_format
from rpcnn.metrics import ParsingEvaluator, format_table
from rpcnn.runtime.distributed import only_one


@dataclass
class Arguments:
    """The command line."""

    predictions: str
    """Folder of the predictions."""
    data_root: Annotated[str, tyro.conf.arg(aliases=["--data"])]
    """Folder of the data set (docs/datasets.md says what it holds)."""
    split: str = "val"
    """Split of the data set: train or val."""
    dataset: str = ""
    """Name or package.module:Class as in data.dataset; without, it is recognized by its files."""
    options: Options = field(default_factory=dict)
    """Options of the data set as in data.options."""
    format: Literal["auto", "instances", "people", "coco", "cihp", "mhp"] = "auto"
    """Format of the predictions (docs/formats.md); auto detects it by the files."""
    output: str = ""
    """Folder for results.json with the metrics; without, they are only printed."""
    missing: Literal["error", "empty", "skip"] = "error"
    """Images of the split without a prediction: an error that names them; people and parts missed; or left out."""
    count_background: bool = True
    """The background is a class of the mean IoU that AP^p and PCP compare (released code)."""
    free_only: bool = False
    """AP^p compares a prediction with people whom no better one took; by default, as the released code, with the one it
    overlaps most."""
    skip_empty: bool = False
    """Images without a predicted person do not count in mIoU and the accuracies (released code: true)."""
    absent: Literal["skip", "zero"] = "skip"
    """Classes that occur nowhere: left out of mIoU (released code), or counted as 0 (some evaluators)."""
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Processes that read and count; 0 is one per processor, 1 the program's own."""


def main(arguments: list[str] | None = None) -> dict:
    """Runs the command line; returns the metrics."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn evaluate", description=__doc__)
    folder, output = pathlib.Path(options.predictions), pathlib.Path(options.output)
    gc.freeze()  # modules stay: looking through torch's objects again and again took a third of the summary's time
    with user_errors():
        only_one("rpcnn evaluate --predictions")
        if output.is_file():
            raise ValueError(f"--output must be a folder, {output} is a file")
        name = detect_format(folder) if options.format == "auto" else options.format
        format, dataset = (
            make_format(name),
            open_split(options.data_root, options.split, options.dataset, options.options),
        )
        evaluator = ParsingEvaluator(
            dataset.labels.num_classes,
            skip_empty=options.skip_empty,
            count_background=options.count_background,
            free_only=options.free_only,
            absent=options.absent,
        )
        results = evaluate_predictions(format, folder, dataset, evaluator, options.missing, options.workers)
    print(format_table(results, dataset.labels))
    if not format.overlapping:
        print(f"rpcnn: format {name!r} gives a pixel to one person: AP^p, PCP and AP^r differ from overlapping maps'")
    if options.output:
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results | {"format": name}, indent=2) + "\n"
        (output / "results.json").write_text(text, encoding="utf-8")
        print(f"rpcnn: metrics are in {output / 'results.json'}")
    return results


if __name__ == "__main__":
    main()
