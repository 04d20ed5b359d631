"""Counts bytes, launches and instructions of the CUDA kernels without a GPU: `python benchmarks/static.py`.

NOTHING HERE IS TIMED. Each case of this folder, and its baseline, runs once on the CPU while its op calls are recorded.
The first table counts both sides by the same rules:

- Bytes are memory traffic beyond the caches: every tensor argument read once and every result written once, plus the
  bytes in COST, from the code of the kernels (levels read twice, scratch maps, copies inside an op).
- Launches: one for each PyTorch op that computes, and for our ops the number in COST, from their launch functions.
- Waits: copies of a size or a value to the host.
- The time is bytes divided by the bandwidth in the datasheet, a lower bound that no kernel reaches.

COST in each bench_<op>.py maps an operator, ours or the baseline's, to a function of the operator's arguments that
returns (launches, bytes beyond arguments and results, waits). Benchmarks without COST have no CUDA kernel.

The other tables count what our kernels execute, with their machine code (executed.py), and what that allows a GPU at
best (limits.py): of the same cases, and of the rows and kernels that `python -m rpcnn.selfcheck` times. That takes half
an hour; `--bytes` writes the first table only.
"""

import argparse
import pathlib
import sys
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import executed
import report
from limits import GPUS

from rpcnn.ops._library import OPS
from rpcnn.selfcheck.cases import cases as selfcheck_cases
from rpcnn.selfcheck.cases import prepared

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


def row(title: str, comparison, ours: Count, cost) -> str:
    """Format one line of the first table."""
    baseline = count(comparison.baseline, cost)
    times = " / ".join(f"{1e6 * ours.bytes / gpu.memory:.3g}" for gpu in GPUS)
    least = f"{comparison.moved / 1e6:.4g}" if comparison.moved else "–"
    return (
        f"| {title} | {least} | {ours.bytes / 1e6:.4g} | {baseline.bytes / 1e6:.4g} | "
        f"{ours.launches} | {baseline.launches} | {ours.waits} | {baseline.waits} | {times} |"
    )


def ruled(head: str) -> list[str]:
    """A table's first two lines."""
    return [head, "|---" * (head.count("|") - 1) + "|"]


def moved_table(cases, cost) -> list[str]:
    """Bytes, launches and waits of each case and of its baseline."""
    lines = ruled(
        "| op | case | least, MB | ours, MB | baseline, MB | launches | baseline's | waits | baseline's "
        "| floor of ours, µs |"
    )
    for case in cases:
        comparison = case.make("cpu")
        lines.append(row(f"{case.op} | {case.name}", comparison, count(comparison.ours, cost), cost))
        print(lines[-1], flush=True)
    return lines


def executed_table(cases, cost) -> list[str]:
    """What the kernels of each case execute."""
    lines = ruled(executed.HEAD.format("op | case"))
    for case in cases:
        ours = case.make("cpu").ours
        lines.append(executed.row(f"{case.op} | {case.name}", executed.launches_of(ours), count(ours, cost).bytes))
        print(lines[-1], flush=True)
    return lines


def selfcheck_tables(only: str, cost) -> list[str]:
    """What the kernels of each row of selfcheck's table execute, and each of those kernels."""
    lines = ruled(executed.HEAD.format("op | run | dtype"))
    kernels = ruled(executed.KERNELS_HEAD)
    for case in selfcheck_cases(OPS, halves=True, only=only):
        run, _, _ = prepared(case, OPS[case.op](small=False), torch.device("cpu"))
        launches, dtype = executed.launches_of(run), str(case.dtype).removeprefix("torch.")
        lines.append(executed.row(f"{case.op} | {case.direction} | {dtype}", launches, count(run, cost).bytes))
        print(lines[-1], flush=True)
        if case.backward or not any(other.backward and other.op == case.op for other in selfcheck_cases(OPS, True)):
            kernels += executed.kernel_rows(str(case), launches)
    return [*lines, "", "## Kernels of those rows", "", KERNELS, "", *kernels]


FIGURES = ", ".join(
    f"{gpu.name} ({gpu.multiprocessors} × {gpu.clock / 1e9:.2f} GHz, {gpu.memory / 1e12:.2f} TB/s, level 2 "
    f"{gpu.level2 / 1e12:.1f} TB/s)"
    for gpu in GPUS
)
MOVED = (
    "Counted from the ops that each side calls and from the kernels' code: traffic beyond the caches, with every "
    "tensor read or written once by each op that takes or returns it. *Least*: the minimum for the function. The "
    f"floor is our bytes over the datasheet's bandwidth, in the order {', '.join(gpu.name for gpu in GPUS)}: a "
    "lower bound, not a promise."
)
EXECUTED = (
    "Counted by executing the machine code that nvcc made for sm_90 on the CPU (`tests/cuda/simt/sass.h`), at full "
    "size. *Instructions* are issued by warps; *lanes* is the share of their lanes that execute them. *Wavefronts* "
    "of the load-store unit (LSU): lines of global memory, and words of one bank of shared memory. *L2*: what "
    "passes the level-2 cache if each block starts with an empty level-1 cache. *DRAM*: the bytes of the first "
    "table, or *L2* where that is less, since a map is counted whole there. *Units*: the busiest of ALU, FMA, FP64 "
    "and XU. A prediction adds up the longest limit of each kernel, or is the time of the DRAM where that is "
    f"longer, and names what takes most of it (`benchmarks/limits.py`), on {FIGURES}. Latency, launches, sorts and "
    "other ops of PyTorch are not in it. The machine code for an A100 or an RTX 4090 differs a little."
)
KERNELS = "Launches of a kernel are added up; the time is the longest of its limits without memory."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--output", default="", help="file to write the tables to, e.g. benchmarks/STATIC.md")
    parser.add_argument("--bytes", action="store_true", help="the first table only, which needs no compiled kernels")
    options = parser.parse_args()
    benches = [bench for bench in report.benches() if hasattr(bench, "COST")]
    cost = {operator: f for bench in benches for operator, f in bench.COST.items()}
    cases = report.cases(benches, False, options.only)
    lines = ["# What the CUDA kernels move and execute", ""]
    lines += [f"`{' '.join(['python', 'benchmarks/static.py', *sys.argv[1:]])}`", ""]
    lines += ["**Nothing here was timed; no GPU was used.**", "", "## Bytes", "", MOVED, "", *moved_table(cases, cost)]
    if not options.bytes:
        with executed.machine_code():
            lines += ["", "## Instructions", "", EXECUTED, "", *executed_table(cases, cost)]
            lines += ["", "## Rows of selfcheck", "", "The same of what `python -m rpcnn.selfcheck` times.", ""]
            lines += selfcheck_tables(options.only, cost)
    if options.output:
        pathlib.Path(options.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
