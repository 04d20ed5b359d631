"""Times every case of this folder against its baseline and writes RESULTS.md: `python benchmarks/report.py`.

It takes about five minutes. Run it on an idle machine, since other work changes the ratios.
"""

import argparse
import datetime
import importlib
import pathlib
import platform
import statistics
import sys
import types

import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from measure import DEVICES, Case, Result, copy_bandwidth, retain_memory, time_both  # noqa: E402

from rpcnn.info import processor  # noqa: E402
from rpcnn.ops._library import OPS  # noqa: E402


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


def run(case: Case, device: str, repeats: int) -> list[Result]:
    """Check a comparison once and time it `repeats` times."""
    comparison = case.make(device)
    comparison.check()
    return [time_both(comparison, case.rounds, device) for _ in range(repeats)]


def milliseconds(value: float) -> str:
    """Format seconds as milliseconds with three digits."""
    return f"{1e3 * value:.3g}"


def row(case: Case, results: list[Result], copying: float) -> str:
    """Format one line of the table: the median over the repeats, and the range of the ratio."""
    ratios = sorted(r.ratio for r in results)
    middle = sorted(results, key=lambda r: r.ratio)[len(results) // 2]
    bytes_ = f"{middle.bandwidth:.1f} | {100 * middle.bandwidth / copying:.0f} %" if middle.moved else "– | –"
    return (
        f"| {case.op} | {case.name} | {milliseconds(middle.ours)} | {milliseconds(middle.baseline)} | "
        f"**{statistics.median(ratios):.1f}** | {ratios[0]:.1f}–{ratios[-1]:.1f} | {bytes_} |"
    )


def machine(device: str, copying: float) -> str:
    """Describe the machine."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    return (
        f"{datetime.date.today()}, {name}, {torch.get_num_threads()} threads, {platform.system()}, "
        f"torch {torch.__version__}; copying 256 MB runs at {copying:.1f} GB/s, read and write counted."
    )


def plot(op: str, points: dict[str, list[tuple[float, Result]]], folder: pathlib.Path) -> pathlib.Path:
    """Plot the times of ours and the baseline over the size, with one panel per swept quantity."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(points), figsize=(4 * len(points), 3.2), squeeze=False)
    for axis, (quantity, series) in zip(axes[0], points.items(), strict=True):
        sizes = [size for size, _ in series]
        axis.loglog(sizes, [1e3 * r.baseline for _, r in series], "o-", color="0.6", label="baseline")
        axis.loglog(sizes, [1e3 * r.ours for _, r in series], "o-", color="C0", label="rpcnn")
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
    parser.add_argument("--output", default="", help="file to write the table to, e.g. benchmarks/RESULTS.md")
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
        "Medians of alternating rounds of ours and the baseline on the same tensors. *Ratio*: the speedup over the "
        "baseline, median and range of the repeats. *GB/s*: counts the minimum of bytes that must move; *of copying*: "
        "its share of the copying speed.",
        "",
        "Memory: both sides with glibc keeping what is freed (MALLOC_MMAP_MAX_=0)."
        if options.retain_memory
        else "Memory: glibc's defaults on both sides; large results are fresh memory, which the system clears.",
        "",
        "| op | case | ours, ms | baseline, ms | ratio | range | GB/s | of copying |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    swept: dict[str, dict[str, list[tuple[float, Result]]]] = {}
    for case in cases(benches(), options.sweep, options.only):
        results = run(case, options.device, 1 if case.sweep else options.repeats)
        lines.append(row(case, results, copying or float("inf")))
        print(lines[-1], flush=True)
        if case.sweep:
            quantity, size = case.name.split(" by ")[-1].removeprefix("by ").split(": ")
            swept.setdefault(case.op, {}).setdefault(quantity, []).append((float(size), results[0]))
    folder = HERE / "plots"
    for op, points in swept.items():
        path = plot(op, points, folder)
        lines += ["", f"![{op}]({path.relative_to(HERE)})"]
    if options.output:
        pathlib.Path(options.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
