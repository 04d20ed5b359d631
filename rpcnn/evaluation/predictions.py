"""Evaluation of prediction files of any model on a data set, one image at a time, in several processes."""

import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Callable

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from rpcnn.data.dataset import PeopleDataset
from rpcnn.data.sample import Truth
from rpcnn.formats import Format, Prediction
from rpcnn.label_schemes import CommonClasses
from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.metrics import ParsingEvaluator
from rpcnn.metrics.evaluator import ImageCounts
from rpcnn.metrics.image_pair import measure_arguments
from rpcnn.runtime.processors import usable_processors

log = logging.getLogger(__name__)

BATCH = 8
"""Images per message from a worker process."""


class Measures(Dataset):
    """Data set of per-image counts: (stem, ImageCounts, whether someone or something was predicted), or
    (stem, ValueError, False) if an image cannot be evaluated.

    Args:
        stems: (stem, index in the data set, whether there is a prediction) of each image.
        classes: those on which truth and predictions of other labels are compared.
    """

    def __init__(
        self,
        format: Format,
        folder: pathlib.Path,
        dataset: PeopleDataset,
        evaluator: ParsingEvaluator,
        stems: list[tuple[str, int, bool]],
        classes: CommonClasses | None = None,
    ):
        self.format, self.folder, self.dataset, self.evaluator, self.stems = format, folder, dataset, evaluator, stems
        self.classes = classes

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> tuple[str, ImageCounts | ValueError, bool]:
        stem, number, predicted = self.stems[index]
        try:
            truth = self.dataset.truth(number)
            prediction = (
                self._read(stem, truth.label_map.shape) if predicted else empty_prediction(truth.label_map.shape)
            )
            if self.classes is not None:
                prediction, truth = in_common(self.classes, prediction, truth)
            counts = self.evaluator.measure(**measure_arguments(prediction, truth))
            return (
                stem,
                counts,
                bool(len(prediction.scores) if self.format.knows_people else prediction.label_map.any()),
            )
        except (ValueError, OSError, MemoryError) as error:
            named = error if isinstance(error, ValueError) else ValueError(f"{type(error).__name__}: {error}")
            return stem, named, False

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
    classes: CommonClasses | None = None,
) -> dict:
    """Evaluate a folder of predictions: metrics in percent, as from :meth:`ParsingEvaluator.summarize`.

    Memory does not grow with the number of images.

    Args:
        format: from :func:`rpcnn.formats.make_format`, or a custom one.
        folder: of the predictions.
        evaluator: a new evaluator; custom metrics (`metrics=`) are in the result, too.
        missing: for images of the data set without a prediction: "error" raises, "empty" counts them as predictions
            without people, "skip" leaves them out. Images whose own files are damaged are an error or left out.
        workers: number of worker processes; 0 starts one per processor that this process may use.
        classes: of :func:`rpcnn.label_schemes.common_classes`, for predictions in other labels than the data set's;
            the evaluator has their number.

    Raises:
        ValueError: images without a prediction, predictions without an image, a file that cannot be read, or a
            prediction that does not fit its image; the message names it.
    """
    if evaluator.settings.skip_empty and not format.knows_people:
        raise ValueError("skip_empty: leaves out images without predicted people, which this format does not store")
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
    if not chosen:
        raise ValueError(f"predictions: none of the {len(known)} images of the data set has a prediction in {folder}")

    measures = Measures(
        format,
        folder,
        dataset=dataset,
        evaluator=evaluator,
        stems=[(stem, known[stem], stem in predicted) for stem in chosen],
        classes=classes,
    )
    processes = min(workers or usable_processors(), len(chosen))
    loader = DataLoader(measures, BATCH, num_workers=processes if processes > 1 else 0, collate_fn=list)
    nothing = True
    with tqdm(total=len(chosen), desc="evaluating", unit="image", disable=None) as progress:
        for stem, counts, predicts in itertools.chain.from_iterable(loader):
            if isinstance(counts, ValueError):
                raise ValueError(f"{'' if str(folder) in str(counts) else f'{folder}: '}{stem}: {counts}")
            evaluator.put(counts, stem)
            nothing &= not predicts
            progress.update()
    if nothing:
        what = "person" if format.knows_people else "part"
        log.warning("predictions: none of %d images has a predicted %s in %s", len(chosen), what, folder)
    # A merged class is one instance of a person, and without people nobody knows which instances to merge.
    knows_instances = format.knows_instances and (classes is None or format.knows_people)
    return evaluator.summarize(format.knows_people, knows_instances)


def in_common(classes: CommonClasses, prediction: Prediction, truth: Truth) -> tuple[Prediction, Truth]:
    """A prediction in other labels, and the truth, in the classes that both have.

    Raises:
        ValueError: the prediction has a value that is none of its labels.
    """
    changed = dataclasses.replace(
        prediction,
        label_map=classes.of_prediction(prediction.label_map, "label map"),
        person_maps=_changed(prediction.person_maps, lambda maps: classes.of_prediction(maps, "map of a person")),
        part_maps=None,
        part_scores=None,
    )
    of_truth = lambda maps: classes.from_truth[maps]
    return changed, truth._replace(
        label_map=of_truth(truth.label_map), person_maps=_changed(truth.person_maps, of_truth)
    )


def _changed(maps: np.ndarray | NumberedPersonMaps, change: Callable[[np.ndarray], np.ndarray]):
    if isinstance(maps, NumberedPersonMaps):
        return NumberedPersonMaps(change(maps.label_map), maps.numbers, maps.count)
    return change(np.asarray(maps))


def empty_prediction(shape: tuple[int, int]) -> Prediction:
    """A prediction without people for an image of size `shape` = (height, width)."""
    return Prediction(np.zeros(shape, np.uint8), np.zeros((0, *shape), np.uint8), np.zeros(0))


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
