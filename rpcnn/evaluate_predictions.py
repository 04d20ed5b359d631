"""Evaluate prediction files of any model: ``python -m rpcnn.evaluate --predictions DIR --data-root DIR``.

--predictions is a folder in a format of docs/formats.md (detected by its files), --data-root a data set of
docs/datasets.md. Prints every metric of rpcnn.metrics in one table; --output also writes results.json. Several
processes read one image at a time each; memory does not grow with the number of images.
"""

import gc
import json
import pathlib
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from rpcnn.commands import output_folder, run, user_errors
from rpcnn.config import Options
from rpcnn.data.datasets import open_split
from rpcnn.evaluation.predictions import evaluate_predictions
from rpcnn.formats import detect_format, make_format
from rpcnn.label_schemes import common_classes, find_scheme
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
    """Name or package.module:Class as in data.dataset; empty: detected by its files."""
    options: Options = field(default_factory=dict)
    """Options of the data set as in data.options."""
    format: Literal["auto", "instances", "people", "coco", "cihp", "mhp", "labels"] = "auto"
    """Format of the predictions (docs/formats.md); auto detects it by the files."""
    map_classes: str = ""
    """Predictions in the labels of another system: lip, atr, schp_atr, pascal_person_part, viton, densepose_parts,
    sapiens, body or a .toml file (docs/evaluate_another_system.md). Truth and predictions are compared in the classes
    that both can tell apart."""
    output: str = ""
    """Folder for results.json; empty: metrics are only printed."""
    missing: Literal["error", "empty", "skip"] = "error"
    """Images of the split without a prediction: error stops and names them; empty counts their people as missed; skip
    leaves them out. Images whose own files are damaged: error stops and names them, the others leave them out."""
    count_background: bool = True
    """Include the background in the mean IoU of AP^p and PCP (released code)."""
    free_only: bool = False
    """AP^p matches a prediction only to people that no better prediction is matched to. By default it is compared with
    the person of highest overlap (released code)."""
    skip_empty: bool = False
    """Exclude images without predicted people from mIoU and the accuracies (released code: true)."""
    absent: Literal["skip", "zero"] = "skip"
    """Classes that occur in no image: skip leaves them out of mIoU (released code); zero counts them as 0."""
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Number of worker processes; 0: one per processor; 1: none besides the main process."""


def main(arguments: list[str] | None = None) -> dict:
    """Run the command; returns the metrics."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn evaluate --predictions DIR", description=__doc__)
    folder = pathlib.Path(options.predictions)
    gc.freeze()  # keeps the garbage collector from traversing torch's objects: a third of the time of the summary
    with user_errors():
        only_one("rpcnn evaluate --predictions")
        output = output_folder(options.output) if options.output else None
        name = detect_format(folder) if options.format == "auto" else options.format
        format, dataset = (
            make_format(name),
            open_split(options.data_root, options.split, name=options.dataset, options=options.options),
        )
        classes = common_classes(find_scheme(options.map_classes), dataset.labels) if options.map_classes else None
        labels = classes.labels if classes else dataset.labels
        evaluator = ParsingEvaluator(
            labels.num_classes,
            skip_empty=options.skip_empty,
            count_background=options.count_background,
            free_only=options.free_only,
            absent=options.absent,
        )
        results = evaluate_predictions(
            format,
            folder,
            dataset=dataset,
            evaluator=evaluator,
            missing=options.missing,
            workers=options.workers,
            classes=classes,
        )
        if output:
            about = {"format": name}
            if classes:
                about |= {"map_classes": options.map_classes, "classes": list(labels.names), "notes": classes.lines}
            text = json.dumps(results | about, indent=2) + "\n"
            (output / "results.json").write_text(text, encoding="utf-8")
    print(format_table(results, labels))
    for line in classes.lines if classes else ():
        print(f"rpcnn: {line}")
    if not format.knows_instances:
        print(f"rpcnn: format {name!r} holds no people: only mIoU and the accuracies are defined")
    elif not format.overlapping:
        print(f"rpcnn: format {name!r} gives a pixel to one person: AP^p, PCP and AP^r differ from overlapping maps'")
    if output:
        print(f"rpcnn: metrics are in {output / 'results.json'}")
    return results


if __name__ == "__main__":
    run(main)
