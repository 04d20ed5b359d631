"""Evaluates anybody's predictions: ``python -m rpcnn.evaluate --predictions DIR --data DIR``.

DIR of --predictions is in one of the formats of docs/formats.md (told by its files), DIR of --data a folder of CIHP or
MHP-v2. Prints every metric of rpcnn.metrics in one table; --output also writes them as JSON. Images are read by several
processes, one at a time each: memory does not grow with the set.
"""

import gc
import itertools
import json
import os
import pathlib
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import tyro
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from rpcnn.data.check import detect_layout
from rpcnn.data.cihp import CIHP
from rpcnn.data.folder import ParsingFolder
from rpcnn.data.mhp import MHPv2
from rpcnn.formats import Prediction, detect_format, make_format
from rpcnn.metrics import ParsingEvaluator, format_table
from rpcnn.metrics.evaluator import ImageCounts, measure_arguments

BATCH = 8
"""Images that a process counts before it sends their counts."""


@dataclass
class Arguments:
    """The command line."""

    predictions: str
    """Folder of the predictions."""
    data: str
    """Folder of the data set: it holds Training and Validation (CIHP) or train and val (MHP-v2)."""
    split: str = "val"
    """Split of the data set: train or val."""
    format: Literal["auto", "instances", "people", "coco", "cihp", "mhp"] = "auto"
    """Format of the predictions (docs/formats.md); auto tells it by the files."""
    output: str = ""
    """JSON file for the metrics."""
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


class Measures(Dataset):
    """What each image contributes: (stem, ImageCounts, or the ValueError that says why there is none).

    stems: of each image its stem, its index in the data set, and whether it has a prediction.
    """

    def __init__(
        self,
        format,
        folder: pathlib.Path,
        dataset: ParsingFolder,
        evaluator: ParsingEvaluator,
        stems: list[tuple[str, int, bool]],
    ):
        self.format, self.folder, self.dataset, self.evaluator, self.stems = format, folder, dataset, evaluator, stems

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> tuple[str, ImageCounts | ValueError]:
        stem, number, predicted = self.stems[index]
        try:
            truth = self.dataset.truth(number)
            found = self.format.read(self.folder, stem) if predicted else _nothing(truth.label_map)
            return stem, self.evaluator.measure(**measure_arguments(found, truth))
        except ValueError as error:
            return stem, error


def evaluate_predictions(
    format,
    folder: pathlib.Path,
    dataset: ParsingFolder,
    evaluator: ParsingEvaluator,
    missing: str = "error",
    workers: int = 0,
) -> dict:
    """The metrics of a folder of predictions, in percent, as :meth:`ParsingEvaluator.summarize` gives them.

    Args:
        format: of :func:`rpcnn.formats.make_format`.
        missing: "error", "empty" or "skip" images of the data set without a prediction.
        workers: processes that read and count; 0 is one per processor.

    Raises:
        ValueError: images without a prediction, predictions without an image, a file that cannot be read, or a
            prediction that does not fit its image; the message names it.
    """
    stems = format.stems(folder)
    known = {entry.id: i for i, entry in enumerate(dataset.entries)}
    strangers = [stem for stem in stems if stem not in known and stem not in dataset.faults]
    if strangers:
        raise ValueError(f"predictions: {_some(strangers)} in {folder} belong to no image of the data set")
    unpredicted = sorted(known.keys() - set(stems))
    if unpredicted and missing == "error":
        raise ValueError(
            f"predictions: {_some(unpredicted)} of {len(known)} images have no prediction in {folder}; "
            "--missing empty counts them as missed, --missing skip leaves them out"
        )
    predicted = set(stems)
    chosen = [stem for stem in known if stem in predicted or missing == "empty"]

    measures = Measures(format, folder, dataset, evaluator, [(stem, known[stem], stem in predicted) for stem in chosen])
    processes = min(workers or os.cpu_count() or 1, len(chosen))
    loader = DataLoader(measures, BATCH, num_workers=processes if processes > 1 else 0, collate_fn=list)
    with tqdm(total=len(chosen), desc="evaluating", unit="image", disable=None) as progress:
        for stem, counts in itertools.chain.from_iterable(loader):
            if isinstance(counts, ValueError):
                raise ValueError(f"{stem}: {counts}")
            evaluator.put(counts, stem)
            progress.update()
    return evaluator.summarize(format.knows_people)


def _nothing(label_map: np.ndarray) -> Prediction:
    nobody = np.zeros((0, *label_map.shape), np.uint8)
    return Prediction(np.zeros_like(label_map), nobody, np.zeros(0))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def open_split(root: str | pathlib.Path, split: str) -> ParsingFolder:
    """A split of CIHP or MHP-v2, told by its folders. Raises ValueError where it is neither."""
    root = pathlib.Path(root)
    try:
        return (CIHP if detect_layout(root) == "cihp" else MHPv2)(root, split)
    except FileNotFoundError as error:
        raise ValueError(f"data: {error}") from None


def main(arguments: list[str] | None = None) -> dict:
    """Runs the command line; returns the metrics."""
    options = tyro.cli(Arguments, args=arguments, prog="python -m rpcnn.evaluate", description=__doc__)
    folder = pathlib.Path(options.predictions)
    gc.freeze()  # modules stay: looking through torch's objects again and again took a third of the summary's time
    try:
        name = detect_format(folder) if options.format == "auto" else options.format
        format, dataset = make_format(name), open_split(options.data, options.split)
        evaluator = ParsingEvaluator(
            dataset.labels.num_classes,
            skip_empty=options.skip_empty,
            count_background=options.count_background,
            free_only=options.free_only,
            absent=options.absent,
        )
        results = evaluate_predictions(format, folder, dataset, evaluator, options.missing, options.workers)
    except (ValueError, OSError) as error:
        sys.exit(f"rpcnn: {error}")
    print(format_table(results, dataset.labels))
    if not format.overlapping:
        print(f"rpcnn: format {name!r} gives a pixel to one person: AP^p, PCP and AP^r differ from overlapping maps'")
    if options.output:
        path = pathlib.Path(options.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results | {"format": name}, indent=2) + "\n", encoding="utf-8")
        print(f"rpcnn: metrics are in {path}")
    return results


if __name__ == "__main__":
    main()
