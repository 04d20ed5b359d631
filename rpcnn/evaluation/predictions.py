"""Evaluation of prediction files of any model on a data set, one image at a time, in several processes."""

import itertools
import os
import pathlib

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from rpcnn.data.dataset import PeopleDataset
from rpcnn.formats import Format, Prediction
from rpcnn.metrics import ParsingEvaluator
from rpcnn.metrics.evaluator import ImageCounts
from rpcnn.metrics.image_pair import measure_arguments

BATCH = 8
"""Images per message from a worker process."""


class Measures(Dataset):
    """Data set of per-image counts: (stem, ImageCounts), or (stem, ValueError) if an image cannot be evaluated.

    Args:
        stems: (stem, index in the data set, whether there is a prediction) of each image.
    """

    def __init__(
        self,
        format: Format,
        folder: pathlib.Path,
        dataset: PeopleDataset,
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
            prediction = (
                self._read(stem, truth.label_map.shape) if predicted else empty_prediction(truth.label_map.shape)
            )
            return stem, self.evaluator.measure(**measure_arguments(prediction, truth))
        except (ValueError, OSError, MemoryError) as error:
            return stem, error if isinstance(error, ValueError) else ValueError(f"{type(error).__name__}: {error}")

    def _read(self, stem: str, shape: tuple[int, int]) -> Prediction:
        size = getattr(self.format, "size", lambda folder, stem: None)(self.folder, stem)
        if size not in (None, tuple(shape)):  # before the memory that it asks for is taken
            raise ValueError(f"must have the image's height and width {tuple(shape)}, got {size}")
        return self.format.read(self.folder, stem)


def evaluate_predictions(
    format: Format,
    folder: pathlib.Path,
    dataset: PeopleDataset,
    evaluator: ParsingEvaluator,
    missing: str = "error",
    workers: int = 0,
) -> dict:
    """Evaluate a folder of predictions: metrics in percent, as from :meth:`ParsingEvaluator.summarize`.

    Memory does not grow with the number of images.

    Args:
        format: from :func:`rpcnn.formats.make_format`, or a custom one.
        folder: of the predictions.
        evaluator: a new evaluator; custom metrics (`metrics=`) are in the result, too.
        missing: for images of the data set without a prediction: "error" raises, "empty" counts them as predictions
            without people, "skip" leaves them out. Images whose own files are damaged are an error or left out.
        workers: number of worker processes; 0 starts one per processor.

    Raises:
        ValueError: images without a prediction, predictions without an image, a file that cannot be read, or a
            prediction that does not fit its image; the message names it.
    """
    stems = format.stems(folder)
    if dataset.faults and missing == "error":
        some = "; ".join(list(dataset.faults.values())[:3])
        raise ValueError(
            f"data: {len(dataset.faults)} images of the data set cannot be used: {some}; --missing empty and --missing "
            "skip leave them out"
        )
    known = {id: i for i, id in enumerate(dataset.ids) if id not in dataset.faults}
    unknown = [stem for stem in stems if stem not in known and stem not in dataset.faults]
    if unknown:
        raise ValueError(f"predictions: {_abbreviate(unknown)} in {folder} belong to no image of the data set")
    unpredicted = sorted(known.keys() - set(stems))
    if unpredicted and missing == "error":
        raise ValueError(
            f"predictions: {_abbreviate(unpredicted)} of {len(known)} images have no prediction in {folder}; "
            "--missing empty counts them as missed, --missing skip leaves them out"
        )
    predicted = set(stems)
    chosen = [stem for stem in known if stem in predicted or missing == "empty"]

    measures = Measures(
        format,
        folder,
        dataset=dataset,
        evaluator=evaluator,
        stems=[(stem, known[stem], stem in predicted) for stem in chosen],
    )
    processes = min(workers or os.cpu_count() or 1, len(chosen))
    loader = DataLoader(measures, BATCH, num_workers=processes if processes > 1 else 0, collate_fn=list)
    with tqdm(total=len(chosen), desc="evaluating", unit="image", disable=None) as progress:
        for stem, counts in itertools.chain.from_iterable(loader):
            if isinstance(counts, ValueError):
                raise ValueError(f"{'' if str(folder) in str(counts) else f'{folder}: '}{stem}: {counts}")
            evaluator.put(counts, stem)
            progress.update()
    return evaluator.summarize(format.knows_people)


def empty_prediction(shape: tuple[int, int]) -> Prediction:
    """A prediction without people for an image of size `shape` = (height, width)."""
    return Prediction(np.zeros(shape, np.uint8), np.zeros((0, *shape), np.uint8), np.zeros(0))


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
