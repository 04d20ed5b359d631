"""Learning curves of one or several runs side by side, from their metrics.jsonl.

The table has the last losses and the last and best evaluation of each run, and what differs in their configurations.
Runs may still be training.
"""

import json
import pathlib
from dataclasses import dataclass

import tyro

from rpcnn.config import load_config, to_dict
from rpcnn.metrics import DEFAULT_METRICS
from rpcnn.training.same_run import flat

from .report import COLORS, new_figure, number, table, write

METRICS = {key: title for metric in DEFAULT_METRICS for title, key in metric.columns}


@dataclass
class Options:
    """Options of the command."""

    metric: str = "miou"
    """The metric whose best value is looked for; a key of results.json."""
    output: pathlib.Path = pathlib.Path("curves")
    """Folder of the table and the plot."""


def run(folders: list[pathlib.Path], arguments: list[str], prog: str) -> dict:
    """Run the command: curves RUN [RUN …] [--metric KEY] [--output DIR]."""
    options = tyro.cli(Options, args=arguments, prog=prog)
    if options.metric not in METRICS:
        raise ValueError(f"{prog}: --metric must be one of {', '.join(METRICS)}, got {options.metric!r}")
    runs = {str(folder): read_records(folder) for folder in folders}
    results = {name: summary(records, options.metric) for name, records in runs.items()}
    different = differences(folders)
    text = format_curves(results, options.metric, different)
    write(options.output, "curves", text=text, values=results, figure=plot_curves(runs, options.metric))
    print(f"{text}\n\nrpcnn: table, numbers and plot are in {options.output}: curves.md, curves.json, curves.png")
    return results


def read_records(folder: pathlib.Path) -> list[dict]:
    """The records of a run's metrics.jsonl. Raises ValueError if there are none."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"curves: {folder} has no metrics.jsonl; give the folder of a run")
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # torn by a crash, or being written
            continue
    if not records:
        raise ValueError(f"curves: {path} has no records yet")
    return records


def summary(records: list[dict], metric: str) -> dict[str, float | None]:
    """The last iteration, loss and speed, and the last and best value of the metric with its iteration."""
    training = [record for record in records if record.get("loss") is not None]
    evaluated = [record for record in records if record.get(metric) is not None]
    best = max(evaluated, key=lambda record: record[metric], default={})
    last = training[-1] if training else {}
    return {
        "iteration": records[-1].get("iteration"),
        "loss": last.get("loss"),
        "images_per_second": last.get("images_per_second"),
        f"last_{metric}": evaluated[-1][metric] if evaluated else None,
        f"best_{metric}": best.get(metric),
        "best_iteration": best.get("iteration"),
    }


def differences(folders: list[pathlib.Path]) -> dict[str, list[str]]:
    """The fields of the configurations in which the runs differ, with the value of each run."""
    settings = [
        flat(to_dict(load_config(path))) if (path := folder / "config.toml").is_file() else {} for folder in folders
    ]
    keys = sorted({key for values in settings for key in values} - {"run.output", "run.resume"})
    values = {key: [str(own.get(key, "–")) for own in settings] for key in keys}
    return {key: row for key, row in values.items() if len(set(row)) > 1}


def format_curves(results: dict[str, dict], metric: str, different: dict[str, list[str]]) -> str:
    """The table of the results and, for several runs that differ, that of their configurations."""
    title = METRICS[metric]
    rows = [
        [
            name,
            number(values["iteration"], 0),
            number(values["loss"], 3),
            number(values["images_per_second"]),
            number(values[f"last_{metric}"], 2),
            number(values[f"best_{metric}"], 2),
            number(values["best_iteration"], 0),
        ]
        for name, values in results.items()
    ]
    text = table(["run", "iteration", "loss", "images/s", f"last {title}", f"best {title}", "at iteration"], rows)
    if different:
        text += "\n\n" + table(["setting", *results], [[key, *values] for key, values in different.items()])
    return text


def plot_curves(runs: dict[str, list[dict]], metric: str):
    """Plot loss, gradient norm, learning rate and the metric of each run over the iterations."""
    figure = new_figure(10, 6)
    panels = {
        "loss": "loss",
        "gradient_norm": "gradient norm",
        "learning_rate": "learning rate",
        metric: METRICS[metric],
    }
    for axes, (key, title) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for i, (name, records) in enumerate(runs.items()):
            points = [(r["iteration"], r[key]) for r in records if r.get(key) is not None and "iteration" in r]
            if points:
                mark = "o" if key == metric else None
                axes.plot(*zip(*points, strict=True), color=COLORS[(i + 1) % len(COLORS)], label=name, marker=mark)
        axes.set(title=title, xlabel="iteration")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(min(len(labels), 3), 1), frameon=False)
    return figure
