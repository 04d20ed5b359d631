"""Times every case of this folder against its baseline and writes RESULTS.md: `python benchmarks/report.py`.

It takes about five minutes. Run it on an idle machine, since other work changes the ratios.
"""

import argparse
import dataclasses
import datetime
import importlib
import json
import math
import pathlib
import platform
import statistics
import subprocess
import sys
import types

import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from measure import DEVICES, Case, Result, copy_bandwidth, retain_memory, time_both  # noqa: E402

from rpcnn.info import processor  # noqa: E402
from rpcnn.ops._library import OPS  # noqa: E402
from rpcnn.selfcheck.times import Times  # noqa: E402


def benches() -> list[types.ModuleType]:
    """Import every bench_*.py of this folder: those of ops in the order of rpcnn.ops, then the others."""
    order = [f"bench_{op}" for op in OPS]
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return [importlib.import_module(name) for name in names]


def cases(benches: list[types.ModuleType], sweep: bool, only: str) -> list[Case]:
    """List the cases of some benchmarks with `only` in their title, those of the sweep if `sweep`."""
    listed = [case for bench in benches for case in bench.CASES]
    return [case for case in listed if (sweep or not case.sweep) and only in str(case)]


def run(case: Case, device: str, repeats: int) -> Result:
    """Check a comparison once and time it, in `repeats` times as many rounds as the case asks for."""
    comparison = case.make(device)
    comparison.check()
    return time_both(comparison, case.rounds * repeats, device)


def milliseconds(times: Times) -> str:
    """Format a median with the quartiles around it, in milliseconds with three digits."""
    return f"{times.median / 1e3:.3g} ({'–'.join(f'{value / 1e3:.3g}' for value in times.quartiles)})"


def row(case: Case, result: Result, copying: float) -> str:
    """Format one line of the table."""
    low, high = result.ratios.interval
    bytes_ = f"{result.bandwidth:.1f} | {100 * result.bandwidth / copying:.0f} %" if result.moved else "– | –"
    cells = [
        *(case.op, case.name, milliseconds(result.ours), milliseconds(result.baseline)),
        *(f"**{result.ratios.median:.1f}**", f"{low:.1f}–{high:.1f}"),
        f"{result.ours.outliers} / {result.baseline.outliers} of {len(result.ours.samples)}",
        *(f"{result.ours_memory:.0f} / {result.baseline_memory:.0f}", bytes_),
    ]
    return f"| {' | '.join(cells)} |"


def commit() -> str:
    """The commit of the code, with a mark if it was changed since."""
    git = lambda *words: subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../rpcnn", "../csrc", ".")
    return (git("rev-parse", "--short=9", "HEAD") or "unknown") + (" and changes" if changed else "")


def versions() -> str:
    """The baselines' versions and commits."""
    names = [f"torch {torch.__version__} ({torch.version.git_version[:9]})"]
    try:
        import torchvision
    except ImportError:
        return names[0]
    return f"{names[0]}, torchvision {torchvision.__version__} ({torchvision.version.git_version[:9]})"


def machine(device: str, copying: float) -> str:
    """Describe the machine."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    return (
        f"{datetime.date.today()}, rpcnn at commit {commit()}, {versions()}; {platform.system()} on {name}, "
        f"{torch.get_num_threads()} threads; copying 256 MB runs at {copying:.1f} GB/s, read and write counted."
    )


def exponent(sizes: list[float], times: list[float]) -> float:
    """The slope of the times over the larger half of the sizes, on logarithmic axes."""
    points = sorted(zip(sizes, times, strict=True))[len(sizes) // 2 - 1 :]
    return statistics.linear_regression(*([math.log(v) for v in side] for side in zip(*points, strict=True))).slope


def plot(op: str, points: dict[str, list[tuple[float, Result]]], folder: pathlib.Path) -> pathlib.Path:
    """Plot the times of ours and the baseline over the size, with one panel per swept quantity."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(points), figsize=(4 * len(points), 3.2), squeeze=False)
    for axis, (quantity, series) in zip(axes[0], points.items(), strict=True):
        sizes = [size for size, _ in series]
        for side, color, label in (("baseline", "0.6", "baseline"), ("ours", "C0", "rpcnn")):
            times = [getattr(result, side).median / 1e3 for _, result in series]
            growth = f"{label}, size to the power of {exponent(sizes, times):.2f}" if len(sizes) > 1 else label
            axis.loglog(sizes, times, "o-", color=color, label=growth)
        axis.set(xlabel=quantity, ylabel="ms", title=op)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{op}.png"
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="how often each comparison is timed (default 3)")
    parser.add_argument("--sweep", action="store_true", help="also how the time grows with size, and a plot per op")
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--retain-memory", action="store_true", help="both sides with glibc keeping freed memory")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument(
        "--output",
        default="",
        help="file for the table, e.g. benchmarks/RESULTS.md; all times in a .json beside it, for compare.py",
    )
    options = parser.parse_args()
    if options.retain_memory:
        retain_memory()
    if options.threads:
        torch.set_num_threads(options.threads)

    copying = copy_bandwidth() if options.device == "cpu" else 0.0
    lines = [
        "# How fast the kernels are",
        "",
        f"`{' '.join(['python', 'benchmarks/report.py', *sys.argv[1:]])}`",
        "",
        machine(options.device, copying),
        "",
        "Alternating rounds of ours and the baseline on the same tensors: medians, with the quartiles in brackets. "
        "*Ratio*: the speedup over the baseline in each round, its median, and the interval that holds the true median "
        "with 95 % confidence. *Outliers*: rounds of ours / the baseline more than 1.5 interquartile ranges beyond the "
        "quartiles. *MB*: by how much a call raises the peak of the process's memory. *GB/s*: counts the minimum of "
        "bytes that must move; *of copying*: its share of the copying speed.",
        "",
        "Memory: both sides with glibc keeping what is freed (MALLOC_MMAP_MAX_=0)."
        if options.retain_memory
        else "Memory: glibc's defaults on both sides; large results are fresh memory, which the system clears.",
        "",
        "| op | case | ours, ms | baseline, ms | ratio | 95 % | outliers | MB | GB/s | of copying |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    swept: dict[str, dict[str, list[tuple[float, Result]]]] = {}
    rows = []
    for case in cases(benches(), options.sweep, options.only):
        result = run(case, options.device, 1 if case.sweep else options.repeats)
        rows.append({"op": case.op, "case": case.name} | dataclasses.asdict(result))
        lines.append(row(case, result, copying or float("inf")))
        print(lines[-1], flush=True)
        if case.sweep:
            quantity, size = case.name.split(" by ")[-1].removeprefix("by ").split(": ")
            swept.setdefault(case.op, {}).setdefault(quantity, []).append((float(size), result))
    folder = HERE / "plots"
    for op, points in swept.items():
        path = plot(op, points, folder)
        lines += ["", f"![{op}]({path.relative_to(HERE)})"]
    if options.output:
        output = pathlib.Path(options.output)
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")
        record = {"machine": machine(options.device, copying), "rows": rows}
        output.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
