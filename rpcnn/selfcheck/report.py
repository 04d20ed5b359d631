"""What a self-check found, as a table to paste and as JSON to compare."""

import dataclasses
import json
import pathlib
import subprocess
from dataclasses import dataclass, field

from .times import Times

FORMAT = 1


@dataclass
class Row:
    """The times of one case."""

    op: str
    direction: str
    dtype: str
    cold: Times | None
    """Inputs that are not in the level-2 cache; None if they are too small to be kept out of it."""
    warm: Times
    """The same inputs in every call."""
    moved: int
    """Bytes of inputs, results and gradients."""
    timed_by: str
    """graph: replays of a CUDA graph; events: calls in a row; host: the processor's clock."""
    megahertz: int | None
    commit: str
    command: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What names the row in every report."""
        return self.op, self.direction, self.dtype


@dataclass
class Report:
    """A self-check of one device."""

    device: str
    """Its name, such as NVIDIA H100 80GB HBM3."""
    date: str
    commit: str
    environment: str
    """The text of rpcnn.info."""
    checks: dict[str, dict[str, str]] = field(default_factory=dict)
    """Op → check → "ok", or what failed."""
    copying: float | None = None
    """GB/s of a plain copy, read and write counted."""
    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What could not be timed, and why."""

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(result.startswith("FAILED") for results in self.checks.values() for result in results.values())


def save_json(report: Report, path: pathlib.Path) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(report)}, indent=1) + "\n", encoding="utf-8")


def load_json(path: pathlib.Path) -> Report:
    """Read a report that :func:`save_json` wrote. Raises ValueError if the file is another."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError
        times = lambda value: value and Times(tuple(value["samples"]))
        rows = [Row(**(row | {key: times(row[key]) for key in ("cold", "warm")})) for row in data.pop("rows")]
        return Report(**data, rows=rows)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} must be a JSON report of rpcnn selfcheck in format {FORMAT}") from None


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def number(value: float) -> str:
    """The value with four digits, or all of them before the point."""
    return f"{value:.4g}" if value < 1e4 else f"{value:.0f}"


def spread(times: Times | None) -> list[str]:
    """Cells for median, quartiles and outliers."""
    if times is None:
        return ["–", "–", "–"]
    first, third = times.quartiles
    return [number(times.median), f"{number(first)} to {number(third)}", f"{times.outliers} of {len(times.samples)}"]


def timing_lines(report: Report) -> list[str]:
    """The table of times."""
    header = ["op", "direction", "dtype", "cold, µs", "quartiles", "outliers", "warm, µs", "quartiles", "outliers"]
    header += ["GB/s", "of copying", "timed by", "MHz", "commit", "command"]
    lines = []
    for row in report.rows:
        speed = row.moved / (row.cold or row.warm).median / 1e3
        share = f"{100 * speed / report.copying:.0f} %" if report.copying and row.cold else "–"
        numbers = [*spread(row.cold), *spread(row.warm), number(speed), share]
        clock = str(row.megahertz or "–")
        lines.append([*row.key, *numbers, row.timed_by, clock, row.commit or "–", f"`{row.command}`"])
    return table(header, lines)


def markdown(report: Report) -> str:
    """The report as one Markdown text, ready to be pasted into an issue."""
    lines = [f"# rpcnn selfcheck on {report.device}, {report.date}", "", "```", report.environment, "```"]
    if report.checks:
        names = list(next(iter(report.checks.values())))
        rows = [[op, *(results[name] for name in names)] for op, results in report.checks.items()]
        lines += ["", *table(["op", *names], rows), ""]
        lines += [f"{report.failed} checks failed." if report.failed else "All checks passed."]
    if report.rows:
        copying = f"Copying 256 MB: {number(report.copying)} GB/s, read and write counted. " if report.copying else ""
        lines += [
            "",
            f"{copying}Cold: inputs in turn, more than the level-2 cache holds; warm: always the same inputs.",
        ]
        lines += ["", *timing_lines(report)]
    if report.faults:
        lines += ["", *(f"Not timed: {fault}" for fault in report.faults)]
    return "\n".join(lines) + "\n"


def commit_of(folder: pathlib.Path) -> str:
    """The commit of the checkout in `folder`, with "+" if tracked files were changed; "" if there is no checkout."""
    if not (folder / ".git").exists():
        return ""
    git = lambda *words: subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    try:
        commit = git("rev-parse", "--short=12", "HEAD").stdout.strip()
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no").stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
