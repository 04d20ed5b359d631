"""The interface of a metric, used by the evaluator, the table and docs/metrics.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rpcnn.labels import LabelSet

from .image_pair import ImagePair


@dataclass(frozen=True)
class Settings:
    """The settings of a :class:`ParsingEvaluator`, which it passes to its metrics."""

    num_classes: int
    """K, background included."""
    skip_empty: bool = False
    """Whether mIoU and the accuracies leave out images without a predicted person (as the released code does), even if
    their predicted label map has labels and their ground truth has people."""
    count_background: bool = True
    """Whether the mean IoU of AP^p and PCP includes the background class, see :func:`match_people`."""
    free_only: bool = False
    """Whether AP^p matches predictions with unmatched true people only, see :func:`match_people`."""
    absent: str = "skip"
    """Whether mIoU skips classes that occur in no image ("skip") or counts them as 0 ("zero"), see :func:`miou`."""


class Metric:
    """One metric, or several metrics computed from the same counts: measure each image, pool the images, summarize.

    Subclasses define :meth:`measure` and :meth:`summarize`; the other members have defaults. Several evaluators and
    processes share one object, so a metric must be picklable and hold no state of an evaluation. The class docstring
    becomes the metric's section of docs/metrics.md, with its first line as the heading.

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
    """(title, key) of each column in the results table, in order."""
    needs_people: Sequence[str] = ()
    """Keys that are undefined for predictions without a person for each pixel."""
    needs_instances: Sequence[str] = ()
    """Keys that are undefined for predictions of a label map alone, without part instances."""
    additive: bool = False
    """Whether the counts are numbers or arrays of one shape of which only the sum matters. The evaluator then keeps the
    sum (0 before the first image) instead of a list with the counts of every image."""

    def measure(self, image: ImagePair, settings: Settings) -> Any:
        """Compute the counts of one image.

        Args:
            image: the prediction and the ground truth.
            settings: those of the evaluator.

        Returns:
            A picklable object. Unless `additive`, the evaluator keeps it to the end, so it should be small.
        """
        raise NotImplementedError

    def pool(self, counts: list) -> Any:
        """Combine the counts of all images, once before :meth:`summarize` and :meth:`details`. Unused if `additive`.

        Args:
            counts: the result of :meth:`measure` for each image, in the order of the image ids; may be empty.

        Returns:
            The `counts` argument of :meth:`summarize` and :meth:`details`.
        """
        return counts

    def summarize(self, counts: Any, settings: Settings) -> dict[str, Any]:
        """Compute the metric.

        Args:
            counts: the result of :meth:`pool`, or the sum if `additive`.
            settings: those of the evaluator.

        Returns:
            Values by key, in percent; None or NaN if undefined.
        """
        raise NotImplementedError

    def details(self, counts: Any, settings: Settings) -> dict[str, Any]:
        """Compute further values, such as lists with an entry per class. They follow the summaries of all metrics."""
        return {}

    def lines(self, results: dict, labels: LabelSet) -> list[str]:
        """Format lines to print below the table, from the result of :meth:`ParsingEvaluator.summarize`."""
        return []


def format_percent(value: float | None, digits: int = 2) -> str:
    """Format a result for the table: – if it is None (undefined)."""
    return "–" if value is None else f"{value:.{digits}f}"
