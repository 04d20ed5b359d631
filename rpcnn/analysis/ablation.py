"""Tables 3-5, 7 and 8: several variants with several seeds, their means and changes beside the paper's.

Runs whose configurations differ only in the seed are one variant. Tables give the mean over the seeds and, for two or
more runs, the standard deviation (n - 1). A change is the difference of two means, with its standard error
sqrt(s1²/n1 + s2²/n2). The correlations of Fig. 5 over matched detections (see `scores`) are computed once per run and
stored in its folder as analysis.json; all other numbers are read from its results.json.
"""

import math
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from .paper import METRICS, variant_row
from .report import COLORS, grouped_bars, mathtext, new_figure, number, table, write
from .runs import CORRELATIONS, RunGroup, differences, group, read_run
from .scores import SCORES

COLUMNS = METRICS | {"ap_bbox": "AP^bbox"}


@dataclass
class Options:
    """Options of the ablation."""

    output: str = "ablation"
    """Folder for ablation.md, ablation.json and ablation.png."""
    baseline: str = ""
    """Variant that the others are compared with; empty: the one without GSE-FPN and PRSN, else the first."""
    data_root: str = ""
    """Folder of the data set for correlations; empty: the folder that each run was trained on."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:N")] = "auto"
    """Device for correlations."""


def run(folders: list[pathlib.Path], arguments: list[str], prog: str) -> dict:
    """Run the command: ablation RUN RUN … [--output DIR] [--baseline NAME] [--data-root DIR] [--device …]."""
    options = tyro.cli(Options, args=arguments, prog=prog)
    changes = ["--run.device", options.device] + (["--data-root", options.data_root] if options.data_root else [])
    variants = group([read_run(folder, changes, prog) for folder in folders])
    baseline = choose_baseline(variants, options.baseline)
    results = summarize(variants, baseline)
    text = format_ablation(results)
    output = pathlib.Path(options.output)
    write(output, "ablation", text=text, values=results, figure=plot_ablation(results))
    print(f"{text}\n\nrpcnn: tables, numbers and plot are in {output}: ablation.md, ablation.json, ablation.png")
    return results


def choose_baseline(variants: Sequence[RunGroup], name: str) -> RunGroup:
    """The variant called `name`; if empty, the only one of Parsing R-CNN, else the first.

    Raises:
        ValueError: no such variant.
    """
    if name:
        named = [variant for variant in variants if variant.name == name]
        if not named:
            known = ", ".join(variant.name for variant in variants)
            raise ValueError(f"ablation: --baseline must be one of {known}, got {name!r}")
        return named[0]
    plain = [variant for variant in variants if not variant.config.model.gse and not variant.config.model.prsn]
    return plain[0] if len(plain) == 1 else variants[0]


def summarize(variants: Sequence[RunGroup], baseline: RunGroup) -> dict:
    """Collect runs, statistics and changes of every variant, and the paper's row of it.

    The variants are ordered: baseline, with GSE-FPN, with PRSN, with both.

    Returns:
        A dict of baseline (a name), differ_in (keys of the configuration) and variants. The last holds by name: seeds,
        runs (values by seed for each metric), mean, std, change and change_error by metric, and paper and paper_change
        by metric of paper.METRICS. Undefined values are None.
    """
    parts = lambda variant: (variant.config.model.gse + variant.config.model.prsn, variant.config.model.prsn)
    variants = [baseline, *sorted((variant for variant in variants if variant is not baseline), key=parts)]
    entries = {}
    for variant in variants:
        values = {key: variant.values(key) for key in (*COLUMNS, *CORRELATIONS)}
        base = {key: baseline.values(key) for key in values}
        published, plain = variant_row(variant.config), variant_row(baseline.config)
        entries[variant.name] = {
            "seeds": [run.seed for run in variant.runs],
            "runs": values,
            "mean": {key: mean(numbers) for key, numbers in values.items()},
            "std": {key: deviation(numbers) for key, numbers in values.items()},
            "change": {key: minus(mean(numbers), mean(base[key])) for key, numbers in values.items()},
            "change_error": {key: error_of_difference(numbers, base[key]) for key, numbers in values.items()},
            "paper": dict(zip(METRICS, published or (None,) * 4, strict=True)),
            "paper_change": {
                key: minus(*pair)
                for key, *pair in zip(METRICS, published or (None,) * 4, plain or (None,) * 4, strict=True)
            },
        }
    return {"baseline": baseline.name, "differ_in": differences(variants), "variants": entries}


def mean(values: Sequence[float]) -> float | None:
    """The mean; None without values."""
    return statistics.fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None for less than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def minus(value: float | None, base: float | None) -> float | None:
    """The difference; None if one of them is None."""
    return None if value is None or base is None else value - base


def error_of_difference(values: Sequence[float], base: Sequence[float]) -> float | None:
    """Standard error of the difference of two means; None if one of them has less than two values."""
    if len(values) < 2 or len(base) < 2:
        return None
    return math.sqrt(statistics.variance(values) / len(values) + statistics.variance(base) / len(base))


def format_ablation(results: dict) -> str:
    """Format three tables: metrics, correlations, changes beside the paper's."""
    entries, baseline = results["variants"], results["baseline"]
    spread = lambda entry, key, digits: cell(entry["mean"][key], entry["std"][key], digits)
    seeds = lambda entry: ", ".join(map(str, entry["seeds"]))
    metrics = [[name, seeds(entry), *(spread(entry, key, 1) for key in COLUMNS)] for name, entry in entries.items()]
    scores = [[name, *(spread(entry, key, 3) for key in CORRELATIONS)] for name, entry in entries.items()]
    changes = [
        [name]
        + [
            text
            for key in METRICS
            for text in (
                cell(entry["change"][key], entry["change_error"][key], digits=1, sign="+"),
                cell(entry["paper_change"][key], None, digits=1, sign="+"),
            )
        ]
        for name, entry in entries.items()
        if name != baseline
    ]
    titles = [f"{SCORES[score]}: {kind.capitalize()}" for score, kind in CORRELATIONS.values()]
    pairs = [text for title in METRICS.values() for text in (title, "paper")]
    parts = [
        "In percent, mean ± standard deviation over seeds",
        table(["", "seeds", *COLUMNS.values()], metrics),
        "Correlation with the true mIoU of each matched detection",
        table(["", *titles], scores),
    ]
    if changes:
        parts += [f"Change from {baseline} in points, ± standard error", table(["", *pairs], changes)]
        parts += [f"The variants differ in {', '.join(results['differ_in'])}."]
    if len({tuple(entry["seeds"]) for entry in entries.values()}) > 1:
        parts += ["The variants do not have the same seeds."]
    return "\n\n".join(parts)


def cell(value: float | None, spread: float | None, digits: int, sign: str = "") -> str:
    """Format a table cell: 12.3 ± 0.4, 12.3 without a spread, – without a value."""
    if value is None:
        return "–"
    return f"{value:{sign}.{digits}f}" + ("" if spread is None else f" ± {number(spread, digits)}")


def plot_ablation(results: dict):
    """Plot all runs with means and standard deviations, the changes beside the paper's, and the correlations."""
    entries, baseline = results["variants"], results["baseline"]
    figure = new_figure(12, 10)
    top, middle, bottom = figure.subfigures(3, 1)
    for axes, (key, title) in zip(top.subplots(1, 4), METRICS.items(), strict=True):
        dots(axes, entries, [(key, "", COLORS[1])])
        axes.set(title=mathtext(title), ylabel="percent" if key == "miou" else "")
    top.suptitle("every run, mean ± standard deviation over seeds", fontsize=10)
    others = [name for name in entries if name != baseline]
    for axes, (key, title) in zip(middle.subplots(1, 4), METRICS.items(), strict=True):
        if not others:
            axes.set_axis_off()
            continue
        series = {kind: [entries[name][field][key] for name in others] for kind, field in CHANGES.items()}
        errors = {"this ablation": [entries[name]["change_error"][key] for name in others]}
        grouped_bars(axes, others, series=series, errors=errors)
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set(title=mathtext(title), ylabel="points" if key == "miou" else "")
        turn_long_names(axes, others)
    if others:
        middle.suptitle(f"change from {baseline} ± standard error, beside the paper's", fontsize=10)
        middle.legend(*middle.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    for axes, kind in zip(bottom.subplots(1, 2, sharey=True), ("pearson", "spearman"), strict=True):
        dots(
            axes,
            entries,
            [(f"{score}_{kind}", title, COLORS[i + 1]) for i, (score, title) in enumerate(SCORES.items())],
        )
        axes.set(title=f"{kind.capitalize()} correlation with the true mIoU", ylabel="correlation")
    bottom.legend(*bottom.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


CHANGES = {"paper": "paper_change", "this ablation": "change"}


def dots(axes, entries: dict, series: Sequence[tuple[str, str, str]]) -> None:
    """Draw every run of each variant as a dot, beside mean and standard deviation; series are (key, name, color)."""
    for i, (key, name, color) in enumerate(series):
        shift = 0.3 * (i - (len(series) - 1) / 2)
        for x, entry in enumerate(entries.values()):
            values = entry["runs"][key]
            axes.scatter([x + shift - 0.06] * len(values), values, s=14, color=color, alpha=0.5, linewidths=0)
            if values:
                axes.errorbar(x + shift + 0.06, entry["mean"][key], entry["std"][key], color=color, fmt="o",
                              markersize=5, capsize=3, label=name if x == 0 else None)  # fmt: skip
    axes.set_xticks(range(len(entries)), entries)
    turn_long_names(axes, entries)
    axes.margins(x=0.15, y=0.15)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def turn_long_names(axes, names: Iterable[str]) -> None:
    """Rotate the names under an axis if they would overlap."""
    if sum(map(len, names)) > 30:
        axes.tick_params(axis="x", rotation=30)
        for text in axes.get_xticklabels():
            text.set_horizontalalignment("right")
