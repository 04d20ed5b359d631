"""Table 6: label maps from the global segmentation only, from people only, and from both.

semseg     the argmax of the global segmentation
parsing    people painted over background
combine    people painted over the global segmentation where its probability is high (Fig. 4)

The network runs once per image. A second run, of Parsing R-CNN, gives the baseline of the table: its people only.
"""

import pathlib

import numpy as np

from rpcnn.metrics import confusion_matrix, mean_accuracy, miou, pixel_accuracy

from .paper import MODES, SEMANTIC_METRICS
from .report import grouped_bars, new_figure, table, with_change, write
from .trained import Trained, open_trained


def run(weights: list[pathlib.Path], arguments: list[str], prog: str) -> dict:
    """Run the command: modes RUN_OR_WEIGHTS [BASELINE_RUN_OR_WEIGHTS] [--output DIR] [--key value …]."""
    if not 1 <= len(weights) <= 2:
        raise ValueError(f"{prog} takes one run and optionally the baseline's, got {len(weights)}")
    trained = open_trained(weights[0], arguments, prog)
    if not trained.config.model.gse:
        raise ValueError(f"modes: {weights[0]} was trained without GSE-FPN: it has no global segmentation to compare")
    results = {}
    if len(weights) == 2:
        results["baseline"] = modes(open_trained(weights[1], arguments, prog), ["parsing"])["parsing"]
    results |= modes(trained, ["semseg", "parsing", "combine"])
    text = f"{trained.name}; beside it the paper's Table 6 (R-50, CIHP val); in percent\n\n{format_modes(results)}"
    write(trained.output, "modes", text=text, values=results, figure=plot_modes(results, trained.name))
    print(f"{text}\n\nrpcnn: table, numbers and plot are in {trained.output}: modes.md, modes.json, modes.png")
    return results


def modes(trained: Trained, names: list[str]) -> dict[str, dict]:
    """Compute miou, pixel_accuracy and mean_accuracy of each semantic mode on the evaluation split, in percent."""
    pipeline = trained.pipeline
    classes = pipeline.label_set.num_classes
    confusions = {name: np.zeros((classes, classes), np.int64) for name in names}
    for sample in trained.samples():
        found = pipeline.detect(sample["image"])
        if trained.config.variant.skip_empty and not len(found.boxes):
            continue
        for name in names:
            label_map = pipeline.finish(found, sample["image"], semantic_mode=name).label_map
            confusions[name] += confusion_matrix(sample["label_map"], label_map, classes)
    functions = {"miou": miou, "pixel_accuracy": pixel_accuracy, "mean_accuracy": mean_accuracy}
    summarize = lambda confusion: {key: percent(function(confusion)) for key, function in functions.items()}
    return {name: summarize(confusion) for name, confusion in confusions.items()}


def percent(value: float) -> float | None:
    """Convert to float; NaN, which JSON does not support, to None."""
    return None if np.isnan(value) else float(value)


def format_modes(results: dict[str, dict]) -> str:
    """Format the table of our and the paper's metrics; in brackets the change to the baseline if there is one."""
    rows = []
    for name, published in MODES.items():
        if name == "baseline" and name not in results:
            rows.append([name, *"–––", *(with_change(value, None) for value in published)])
            continue
        base = results["baseline"] if "baseline" in results and name != "baseline" else dict.fromkeys(SEMANTIC_METRICS)
        paper_base = MODES["baseline"] if name != "baseline" else (None,) * len(published)
        rows.append(
            [name]
            + [with_change(results[name][key], base[key]) for key in SEMANTIC_METRICS]
            + [with_change(value, other) for value, other in zip(published, paper_base, strict=True)]
        )
    return table(["", *SEMANTIC_METRICS.values(), *(f"paper: {title}" for title in SEMANTIC_METRICS.values())], rows)


def plot_modes(results: dict[str, dict], name: str):
    """Plot the modes as bars for each metric, this run on the left, the paper on the right."""
    figure = new_figure(9, 3.6)
    series = {row: [results.get(row, {}).get(key) for key in SEMANTIC_METRICS] for row in MODES}
    for axes, bars, title in zip(
        figure.subplots(1, 2, sharey=True), (series, MODES), (name, "paper, Table 6 (R-50, CIHP val)"), strict=True
    ):
        grouped_bars(axes, list(SEMANTIC_METRICS.values()), bars)
        axes.set(title=title, ylim=(0, 108))
    figure.axes[0].set_ylabel("percent")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure
