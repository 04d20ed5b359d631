"""Generates docs/metrics.md from the metrics' docstrings: ``python -m rpcnn.metrics.docs > docs/metrics.md``."""

import inspect
import textwrap
from collections.abc import Iterable, Sequence

from .defaults import DEFAULT_METRICS
from .metric import Metric, Settings

INTRODUCTION = """\
# Metrics

All are in percent. `rpcnn.metrics` has each as a function of arrays; `ParsingEvaluator` takes an image at a time and
keeps counts only. `rpcnn.metrics.reference` has them step by step, and the tests compare the two.

One of your own is a class in a file of yours: [add a metric](add_a_metric.md).

Letters: a set of images with K classes, 0 the background; true pixels of K or more (255) are ignored.
"""


def markdown(metrics: Sequence[Metric] = DEFAULT_METRICS) -> str:
    """Generate the page: an introduction, and a section with the docstring and the keys of each metric."""
    return "\n".join([INTRODUCTION, *map(_section, metrics)])


def _section(metric: Metric) -> str:
    heading, _, text = inspect.cleandoc(type(metric).__doc__ or "").partition("\n")
    counts = 0 if metric.additive else metric.pool([])
    settings = Settings(num_classes=1)
    keys = metric.summarize(counts, settings) | metric.details(counts, settings)
    sentences = [f"Keys: {_listed(keys)}."]
    if metric.needs_people:
        missing = "all" if set(keys) == set(metric.needs_people) else _listed(metric.needs_people)
        sentences.append(f"Undefined where predictions do not say which person a pixel belongs to: {missing}.")
    if metric.needs_instances:
        sentences.append(f"Undefined for predictions of a label map alone: {_listed(metric.needs_instances)}.")
    paragraphs = (f"## {heading.rstrip('.')}", text.strip(), textwrap.fill(" ".join(sentences), 120))
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


if __name__ == "__main__":
    print(markdown(), end="")
