"""Counts bytes, launches and synchronizations of the CUDA kernels without a GPU: `python benchmarks/static.py`.

NOTHING HERE IS TIMED. Each case of this folder, and its baseline, runs once on the CPU while its op calls are recorded.
Both sides are counted by the same rules:

- Bytes are memory traffic beyond the caches: every tensor argument read once and every result written once, plus the
  bytes in COST, from the code of the kernels (levels read twice, scratch maps, copies inside an op).
- Launches: one for each PyTorch op that computes, and for our ops the number in COST, from their launch functions.
- Waits: copies of a size or a value to the host.
- The time is bytes divided by the bandwidth in the datasheet, a lower bound that no kernel reaches.

COST in each bench_<op>.py maps an operator, ours or the baseline's, to a function of the operator's arguments that
returns (launches, bytes beyond arguments and results, waits). Benchmarks without COST have no CUDA kernel.
"""

import argparse
import pathlib
import sys
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import report

BANDWIDTH = {"H100": 3350e9, "A100": 2039e9, "RTX 4090": 1008e9}  # bytes a second: SXM, SXM 80 GB
WAITS = ("nonzero", "_local_scalar_dense", "masked_select", "unique")
FREE = ("empty", "new_empty", "detach", "lift_fresh", "resize_", "set_")


def size(tensors) -> int:
    """Count the bytes of tensors and lists of tensors."""
    return sum(t.numel() * t.element_size() for t in tree_leaves(tensors) if isinstance(t, torch.Tensor))


class Count(TorchDispatchMode):
    """Adds up launches, bytes and waits of the ops called inside the mode. `cost` merges COST of all benchmarks."""

    def __init__(self, cost):
        super().__init__()
        self.cost = cost
        self.launches = self.bytes = self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function._schema.name.partition("::")[2]
        known = self.cost.get(function._schema.name)
        aliases = any(r.alias_info and not r.alias_info.is_write for r in function._schema.returns)
        if known:
            launches, more, waits = known(*args)
        elif aliases or any(name.startswith(free) for free in FREE) or not size((args, kwargs, result)):
            return result
        else:
            masks = name == "index" and any(getattr(i, "dtype", None) == torch.bool for i in tree_leaves(args[1]))
            waits = int(masks or name in WAITS)
            launches, more = (3, 0) if waits and name != "_local_scalar_dense" else (1, 0)
        self.launches += launches
        self.bytes += size(args) + size(kwargs or {}) + size(result) + more
        self.waits += waits
        return result


def count(run, cost) -> Count:
    """Count one call, after a warm-up call."""
    run()
    # Ops check the values of boxes on the CPU, but not on a GPU or while compiling: count as on a GPU.
    with mock.patch("torch.compiler.is_compiling", lambda: True), Count(cost) as counted:
        run()
    return counted


def row(case, cost) -> str:
    """Format one line of the table."""
    comparison = case.make("cpu")
    ours, baseline = count(comparison.ours, cost), count(comparison.baseline, cost)
    times = " / ".join(f"{1e6 * ours.bytes / bandwidth:.3g}" for bandwidth in BANDWIDTH.values())
    least = f"{comparison.moved / 1e6:.4g}" if comparison.moved else "–"
    return (
        f"| {case.op} | {case.name} | {least} | {ours.bytes / 1e6:.4g} | {baseline.bytes / 1e6:.4g} | "
        f"{ours.launches} | {baseline.launches} | {ours.waits} | {baseline.waits} | {times} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--output", default="", help="file to write the table to, e.g. benchmarks/STATIC.md")
    options = parser.parse_args()
    lines = [
        "# What the CUDA kernels move",
        "",
        f"`{' '.join(['python', 'benchmarks/static.py', *sys.argv[1:]])}`",
        "",
        "**Nothing here was timed; no GPU was used.** Counted from the ops that each side calls and from the kernels' "
        "code: traffic beyond the caches, with every tensor read or written once by each op that takes or returns it. "
        "*Least*: the minimum for the function. The time is our bytes over the datasheet's bandwidth of "
        + ", ".join(f"{name} ({b / 1e12:.2f} TB/s)" for name, b in BANDWIDTH.items())
        + ": a lower bound, not a promise.",
        "",
        "| op | case | least, MB | ours, MB | baseline, MB | launches | baseline's | waits | baseline's "
        "| floor of ours, µs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    benches = [bench for bench in report.benches() if hasattr(bench, "COST")]
    cost = {operator: f for bench in benches for operator, f in bench.COST.items()}
    for case in report.cases(benches, False, options.only):
        lines.append(row(case, cost))
        print(lines[-1], flush=True)
    if options.output:
        pathlib.Path(options.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
