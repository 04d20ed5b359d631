"""What the CUDA kernels move, launch and wait for, counted without a GPU: `python benchmarks/static.py`.

NOTHING HERE WAS TIMED. Each case of this folder runs once on the CPU while the ops that it calls are noted, its peer
the same way; then both are counted by one rule. Bytes are traffic beyond the caches: every tensor argument read once
and every result written once, with what COST adds from the code of the kernels (levels read twice, scratch maps, copies
inside an op). Launches: one for each op of PyTorch's that computes, and those of the kernels as their launch functions
have them. Waits: copies of a size or a value to the host. The time is bytes over the datasheet's bandwidth, a floor
that no kernel reaches.

Each bench_<op>.py has its COST: for an operator, ours or the peer's, a function of the operator's arguments that gives
(launches, bytes beyond arguments and results, waits). Benchmarks without COST have no CUDA kernel.
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
    """Bytes of tensors and lists of tensors."""
    return sum(t.numel() * t.element_size() for t in tree_leaves(tensors) if isinstance(t, torch.Tensor))


class Count(TorchDispatchMode):
    """Adds up launches, bytes and waits of the ops called while it is on; `cost` is every COST."""

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
    """Of one call; the first one, which may prepare something, is not counted."""
    run()
    # On the CPU the ops look at the boxes' values, on a GPU they do not, nor while compiling.
    with mock.patch("torch.compiler.is_compiling", lambda: True), Count(cost) as counted:
        run()
    return counted


def row(case, cost) -> str:
    """One line of the table."""
    comparison = case.make("cpu")
    ours, peer = count(comparison.ours, cost), count(comparison.peer, cost)
    times = " / ".join(f"{1e6 * ours.bytes / bandwidth:.3g}" for bandwidth in BANDWIDTH.values())
    least = f"{comparison.moved / 1e6:.4g}" if comparison.moved else "–"
    return (
        f"| {case.op} | {case.name} | {least} | {ours.bytes / 1e6:.4g} | {peer.bytes / 1e6:.4g} | "
        f"{ours.launches} | {peer.launches} | {ours.waits} | {peer.waits} | {times} |"
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
        "**Nothing here was timed, no GPU was there.** Counted from the ops that each side calls and from the kernels' "
        "code; traffic beyond the caches, with every tensor read or written once by each op that takes or gives it. "
        "*Least*: what the function needs at all. The time is our bytes over the datasheet's bandwidth of "
        + ", ".join(f"{name} ({b / 1e12:.2f} TB/s)" for name, b in BANDWIDTH.items())
        + ": a floor, not a promise.",
        "",
        "| op | case | least, MB | ours, MB | peer, MB | launches | peer's | waits | peer's | floor of ours, µs |",
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
