"""Metrics as plain text."""

from collections.abc import Sequence

from rpcnn.labels import LabelSet

from .defaults import DEFAULT_METRICS
from .metric import Metric, format_percent


def format_table(results: dict, labels: LabelSet, metrics: Sequence[Metric] = DEFAULT_METRICS) -> str:
    """Format results as a table in percent, with – for undefined values, and the metrics' further lines below it.

    Args:
        results: the result of :meth:`ParsingEvaluator.summarize`.
        labels: the class names.
        metrics: the evaluator's metrics.
    """
    columns = [column for metric in metrics for column in metric.columns]
    sections = [
        [
            f"{labels.name}: {results['images']} images, {results['people']} people, in percent",
            "".join(f"{title:>12}" for title, _ in columns),
            "".join(f"{format_percent(results[key]):>12}" for _, key in columns),
        ],
        *(metric.lines(results, labels) for metric in metrics),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)
