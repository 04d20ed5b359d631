"""What a metric is: what the evaluator, the table and docs/metrics.md ask it for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rpcnn.labels import LabelSet

from .image_pair import ImagePair


@dataclass(frozen=True)
class Settings:
    """What a :class:`ParsingEvaluator` was made with."""

    num_classes: int
    """K, background included."""
    skip_empty: bool = False
    """Images without a predicted person do not count in mIoU and the accuracies (released code), although the
    prediction may hold labels and the truth people."""
    count_background: bool = True
    """The background is a class of the mean IoU that AP^p and PCP compare, see :func:`match_people`."""
    free_only: bool = False
    """AP^p compares a prediction with free people only, see :func:`match_people`."""
    absent: str = "skip"
    """Classes that occur nowhere are skipped by mIoU, or count as 0 ("zero"), see :func:`miou`."""


class Metric:
    """One metric, or several that are made of the same counts: measure an image, pool the images, summarize.

    Subclasses give :meth:`measure` and :meth:`summarize`; the rest has defaults. They must be picklable and hold no
    state of an evaluation: several evaluators and processes use one object. The class docstring is the metric's section
    of docs/metrics.md, its first line the heading.

    >>> class RightNumber(Metric):
    ...     '''Share of images with as many predicted people as true ones.'''
    ...     columns = (("Number", "right_number"),)
    ...     needs_people = ("right_number",)
    ...     def measure(self, image, settings):
    ...         return len(image.person_maps) == len(image.true_person_maps)
    ...     def summarize(self, counts, settings):
    ...         return {"right_number": 100 * sum(counts) / len(counts) if counts else None}
    >>> ParsingEvaluator(20, metrics=(*DEFAULT_METRICS, RightNumber()))     # doctest: +SKIP
    """

    columns: Sequence[tuple[str, str]] = ()
    """(title, key) of the table's columns, in order."""
    needs_people: Sequence[str] = ()
    """Keys that are undefined for predictions that do not say which person a pixel belongs to."""
    additive: bool = False
    """Counts are numbers or arrays of one shape, and only their sum matters: the evaluator keeps the sum (0 before the
    first image) in place of a list with the counts of every image."""

    def measure(self, image: ImagePair, settings: Settings) -> Any:
        """What one image contributes; picklable, and small unless `additive`: it is kept to the end."""
        raise NotImplementedError

    def pool(self, counts: list) -> Any:
        """All images as one, called once before the two below, unless `additive`.

        counts: of each image what :meth:`measure` gave, in the order of the images' names; may be empty.
        """
        return counts

    def summarize(self, counts: Any, settings: Settings) -> dict[str, Any]:
        """Keys and their values from what :meth:`pool` gave (or from the sum): percent, None or NaN where undefined."""
        raise NotImplementedError

    def details(self, counts: Any, settings: Settings) -> dict[str, Any]:
        """More keys, which follow the summaries of all metrics; also lists, as with an entry per class."""
        return {}

    def lines(self, results: dict, labels: LabelSet) -> list[str]:
        """Lines below the table's columns, from what :meth:`ParsingEvaluator.summarize` gave."""
        return []


def format_percent(value: float | None, digits: int = 2) -> str:
    """A result as the table shows it: – where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"
