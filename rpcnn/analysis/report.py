"""Markdown tables, matplotlib plots, and writing both to files."""

import json
import pathlib
import re
from collections.abc import Sequence

# Distinguishable with color blindness and in print (palette of Okabe and Ito).
COLORS = ("#7f7f7f", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also aligned as plain text: the first column to the left, the others to the right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(max(len(row[i]) for row in cells), 3) for i in range(len(header))]
    padded = lambda row: [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(widths)))]
    line = lambda row: f"| {' | '.join(padded(row))} |"
    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([line(cells[0]), f"|{'|'.join(rule)}|", *map(line, cells[1:])])


def number(value: float | None, digits: int = 1) -> str:
    """Format a number; – if it is None."""
    return "–" if value is None else f"{value:.{digits}f}"


def with_change(value: float | None, base: float | None, digits: int = 1) -> str:
    """Format a number, in brackets its difference to `base`, computed from the rounded numbers."""
    if value is None or base is None:
        return number(value, digits)
    return f"{value:.{digits}f} ({round(value, digits) - round(base, digits):+.{digits}f})"


def mathtext(title: str) -> str:
    """Convert a title such as AP^p_50 to matplotlib's math text, with superscript and subscript."""
    return re.sub(r"(\^\w+?)?_(\w+)", lambda m: f"${m[1] or ''}_{{{m[2]}}}$", title)


def new_figure(width: float, height: float):
    """An empty matplotlib figure of width x height inches. Raises ValueError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(f"plots need matplotlib ({error}): pip install 'rpcnn[plots]'") from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def grouped_bars(axes, groups: Sequence[str], series: dict[str, Sequence[float | None]], errors=None) -> None:
    """Draw grouped bars with their values in percent.

    Args:
        groups: names on the axis.
        series: by name, one value per group; None leaves a gap.
        errors: by name of the series, half the length of each error bar.
    """
    width = 0.84 / len(series)
    for i, (name, values) in enumerate(series.items()):
        at = [g + (i - (len(series) - 1) / 2) * width for g in range(len(groups))]
        heights = [0.0 if value is None else value for value in values]
        spread = None if not errors or errors.get(name) is None else [error or 0.0 for error in errors[name]]
        bars = axes.bar(at, heights, 0.92 * width, label=name, color=COLORS[i % len(COLORS)], yerr=spread,
                        error_kw={"elinewidth": 1, "capsize": 2})  # fmt: skip
        texts = ["" if value is None else f"{value:.1f}" for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=7)
    axes.set_xticks(range(len(groups)), groups)
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)


def write(folder: pathlib.Path, name: str, text: str, values: dict, figure) -> None:
    """Write name.md (the table), name.json (the unrounded numbers) and name.png (the plot)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    figure.savefig(folder / f"{name}.png")
