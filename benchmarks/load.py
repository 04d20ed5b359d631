"""Memory, open files and speed of a command over a long time.

    python benchmarks/load.py watch predict.tsv --progress "out/*.json" -- python -m rpcnn.predict pictures --output out
    python benchmarks/load.py watch train.tsv --progress runs/x/metrics.jsonl -- python -m rpcnn.train …
    python benchmarks/load.py plot predict.tsv train.tsv --output benchmarks/plots/load.png

`watch` runs a command and writes, every few seconds, what it and its children hold. `plot` draws that over time, and
prints a table of the second and the last tenth of each run: what is flat has the same numbers in both. Linux only.
"""

import argparse
import csv
import glob
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

COLUMNS = ("seconds", "megabytes", "files", "done")


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants that live."""
    yield pid
    for listing in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            children = pathlib.Path(listing).read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def megabytes(pid: int) -> float:
    """Memory of a process, its share of what it shares counted in part; 0 if it has ended."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def open_files(pid: int) -> int:
    """Number of open files of a process; 0 if it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def done(progress: str) -> int:
    """Number of files that match a pattern, or, of a single .jsonl, of its lines."""
    if progress.endswith(".jsonl"):
        try:
            with open(progress, "rb") as file:
                return sum(1 for _ in file)
        except OSError:
            return 0
    return sum(1 for _ in glob.iglob(progress, recursive=True))


def watch(output: pathlib.Path, progress: str, every: float, command: list[str]) -> int:
    """Run a command and record it; returns its exit status."""
    with subprocess.Popen(command) as process, open(output, "w", newline="") as file:
        table, start = csv.writer(file, delimiter="\t"), time.monotonic()
        table.writerow(COLUMNS)
        while process.poll() is None:
            pids = list(family(process.pid))
            row = (time.monotonic() - start, sum(map(megabytes, pids)), sum(map(open_files, pids)), done(progress))
            table.writerow([f"{row[0]:.1f}", f"{row[1]:.1f}", *row[2:]])
            file.flush()
            try:
                process.wait(every)
            except subprocess.TimeoutExpired:
                continue
    return process.returncode


def read(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a recording."""
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file, delimiter="\t")]


def tenth(rows: list[dict[str, float]], k: int) -> dict[str, float]:
    """Medians of the k-th tenth of a recording, and its progress per second."""
    part = rows[len(rows) * k // 10 : len(rows) * (k + 1) // 10 + 1]
    span = part[-1]["seconds"] - part[0]["seconds"]
    middle = {name: statistics.median(row[name] for row in part) for name in ("megabytes", "files")}
    return middle | {"speed": (part[-1]["done"] - part[0]["done"]) / span if span else 0.0}


def plot(paths: list[pathlib.Path], output: pathlib.Path) -> None:
    """Draw recordings, and print a table."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, len(paths), figsize=(4 * len(paths), 6), squeeze=False, sharex="col")
    print("| command | minutes | done | MB | open files | done a second |\n|---|---|---|---|---|---|")
    for column, path in enumerate(paths):
        rows = read(path)
        minutes = [row["seconds"] / 60 for row in rows]
        window = max(len(rows) // 20, 1)
        pairs = list(zip(rows, rows[window:], strict=False))
        speed = [(b["done"] - a["done"]) / (b["seconds"] - a["seconds"]) for a, b in pairs]
        axes[0, column].set_title(path.stem)
        axes[0, column].plot(minutes, [row["megabytes"] for row in rows])
        axes[1, column].plot(minutes, [row["files"] for row in rows])
        axes[2, column].plot(minutes[window:], speed)
        axes[2, column].set_xlabel("minutes")
        for axis in axes[:, column]:
            axis.set_ylim(bottom=0)
        early, late = tenth(rows, 1), tenth(rows, 9)
        cells = [f"{early[name]:.{digits}f} → {late[name]:.{digits}f}" for name, digits in
                 (("megabytes", 0), ("files", 0), ("speed", 2))]  # fmt: skip
        print(f"| {path.stem} | {minutes[-1]:.0f} | {rows[-1]['done']:.0f} | {' | '.join(cells)} |")
    for axis, name in zip(axes[:, 0], ("MB", "open files", "done a second"), strict=True):
        axis.set_ylabel(name)
    figure.tight_layout()
    figure.savefig(output, dpi=80)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="action", required=True)
    watching = commands.add_parser("watch", help="run a command and record it")
    watching.add_argument("recording", type=pathlib.Path, help="the .tsv to write")
    watching.add_argument("--progress", required=True, help="pattern of files, or a .jsonl, that grow with the work")
    watching.add_argument("--every", type=float, default=2.0, help="seconds between two looks")
    watching.add_argument("command", nargs="+", help="after --")
    plotting = commands.add_parser("plot", help="draw recordings")
    plotting.add_argument("recordings", type=pathlib.Path, nargs="+")
    plotting.add_argument("--output", type=pathlib.Path, default=pathlib.Path("load.png"))
    options = parser.parse_args()
    if options.action == "watch":
        return watch(options.recording, options.progress, options.every, options.command)
    plot(options.recordings, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
