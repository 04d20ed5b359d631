"""The evaluator: computes a list of metrics image by image, in bounded memory, over any number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .defaults import DEFAULT_METRICS
from .image_pair import ImagePair, measure_arguments
from .metric import Metric, Settings
from .semantic import check_absent


@dataclass(frozen=True)
class ImageCounts:
    """The result of :meth:`ParsingEvaluator.measure` for one image."""

    num_people: int
    """Number of true people."""
    counts: tuple
    """The result of :meth:`Metric.measure` for each metric."""


class ParsingEvaluator:
    """Adds up the counts of one image at a time and computes the metrics at the end.

    Keeps no maps, only some 400 bytes per predicted person.

    >>> evaluator = ParsingEvaluator(num_classes=20)
    >>> for ... in ...: evaluator.add(label_map=..., person_maps=..., ...)    # doctest: +SKIP
    >>> evaluator.summarize()["miou"]                                 # doctest: +SKIP

    With several processes, each adds its own images, and one merges the `state()` of the others.

    Args:
        num_classes, skip_empty, count_background, free_only, absent: see :class:`Settings`.
        metrics: the metrics to compute, the package's or your own subclasses of :class:`Metric`.

    Raises:
        ValueError: `absent` is neither "skip" nor "zero".
    """

    def __init__(
        self,
        num_classes: int,
        skip_empty: bool = False,
        count_background: bool = True,
        free_only: bool = False,
        absent: str = "skip",
        metrics: Sequence[Metric] = DEFAULT_METRICS,
    ):
        check_absent(absent)
        self.settings = Settings(
            num_classes, skip_empty, count_background=count_background, free_only=free_only, absent=absent
        )
        self.metrics = tuple(metrics)
        self._sums: list = [0] * len(self.metrics)  # of the additive metrics
        self._images: dict[tuple, ImageCounts] = {}  # (0, number) without a name, (1, name) with one

    def add(self, *, image_id: int | str | None = None, **arrays: Any) -> None:
        """Add the prediction and the ground truth of one image.

        Args:
            image_id: the image's id, of one type for all images. Equal scores rank in the order of the ids, so that
                the order of adding and merging does not matter. None numbers the images in the order of adding.
            arrays: the arguments of :meth:`measure`.

        Raises:
            ValueError: as :meth:`measure`, or the image was added before. The evaluator is unchanged then.
        """
        self._check_new([self._key(image_id)])
        self.put(self.measure(**arrays), image_id)

    def add_result(self, result: Any, truth: Any, image_id: int | str | None = None) -> None:
        """Add one image as :meth:`add` does, from a result and a truth object; see :func:`measure_arguments`."""
        self.add(image_id=image_id, **measure_arguments(result, truth))

    def measure(self, **arrays: Any) -> ImageCounts:
        """Compute the counts of one image without adding them, so that several threads can measure and one :meth:`put`.

        Args:
            arrays: the arguments of :meth:`ImagePair.of` without num_classes.

        Raises:
            ValueError: as :meth:`ImagePair.of`.
        """
        image = ImagePair.of(self.settings.num_classes, **arrays)
        counts = tuple(metric.measure(image, self.settings) for metric in self.metrics)
        return ImageCounts(len(image.true_person_maps), counts)

    def put(self, counts: ImageCounts, image_id: int | str | None = None) -> None:
        """Add an image from its counts. Raises ValueError if the image was added before."""
        key = self._key(image_id)
        self._check_new([key])
        self._add_sums(counts.counts)
        kept = (None if metric.additive else one for metric, one in zip(self.metrics, counts.counts, strict=True))
        self._images[key] = replace(counts, counts=tuple(kept))

    def state(self) -> dict:
        """Return a picklable state, which the evaluator of another process can :meth:`merge`."""
        return {
            "num_classes": self.settings.num_classes,
            "metrics": self._names(),
            "sums": list(self._sums),
            "images": dict(self._images),
        }

    def merge(self, state: dict) -> None:
        """Add all images of another evaluator.

        Args:
            state: the other evaluator's :meth:`state`. Its images without an id get the next numbers.

        Raises:
            ValueError: the number of classes or the metrics differ, or an image is in both evaluators.
        """
        if state["num_classes"] != self.settings.num_classes:
            raise ValueError(
                f"ParsingEvaluator: merge wants a state of {self.settings.num_classes} classes, "
                f"got {state['num_classes']}"
            )
        if state["metrics"] != self._names():
            raise ValueError(
                f"ParsingEvaluator: merge wants a state of the metrics {', '.join(self._names())}, "
                f"got {', '.join(state['metrics'])}"
            )
        keys = [
            (named, name if named else len(self._images) + number)
            for number, (named, name) in enumerate(state["images"])
        ]
        self._check_new(keys)
        self._add_sums(state["sums"])
        self._images.update(zip(keys, state["images"].values(), strict=True))

    def summarize(self, knows_people: bool = True, knows_instances: bool = True) -> dict:
        """Compute all metrics.

        Args:
            knows_people: False for predictions without a person for each pixel; the keys in `needs_people` of every
                metric are None then.
            knows_instances: False for predictions without part instances; the same for `needs_instances`.

        Returns:
            The summaries of all metrics, then their details (docs/metrics.md), in percent, None if undefined; and the
            numbers of images ("images") and of true people ("people").
        """
        images = [self._images[key] for key in sorted(self._images)]
        pooled = [
            self._sums[i] if metric.additive else metric.pool([image.counts[i] for image in images])
            for i, metric in enumerate(self.metrics)
        ]
        results: dict = {}
        for metric, counts in zip(self.metrics, pooled, strict=True):
            results |= metric.summarize(counts, self.settings)
        for metric, counts in zip(self.metrics, pooled, strict=True):
            results |= metric.details(counts, self.settings)
        results = {key: _none_for_nan(value) for key, value in results.items()}
        if not knows_people:
            results |= {key: None for metric in self.metrics for key in metric.needs_people}
        if not knows_instances:
            results |= {key: None for metric in self.metrics for key in metric.needs_instances}
        return results | {"images": len(images), "people": sum(image.num_people for image in images)}

    def _add_sums(self, counts: Sequence) -> None:
        for i, metric in enumerate(self.metrics):
            if metric.additive:
                self._sums[i] = self._sums[i] + counts[i]  # not in place: states and measured images keep theirs

    def _names(self) -> list[str]:
        return [type(metric).__name__ for metric in self.metrics]

    def _key(self, image_id: int | str | None) -> tuple:
        return (0, len(self._images)) if image_id is None else (1, image_id)

    def _check_new(self, keys: list[tuple]) -> None:
        for key in keys:
            if key in self._images:
                raise ValueError(f"ParsingEvaluator: image {key[1]!r} was added before")


def _none_for_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_none_for_nan(one) for one in value]
    return None if value is None or np.isnan(value) else float(value)
