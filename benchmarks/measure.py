"""Times a kernel and its baseline in alternating rounds, in one process, on the same tensors.

Each bench_<op>.py lists its CASES. `pytest benchmarks/ --benchmark-only` checks that both sides agree, times ours with
one run of the baseline before every round, and reports the ratio of the medians. `python benchmarks/report.py` writes
the same numbers to RESULTS.md. The ratios depend less on the machine than the times.
"""

import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rpcnn.selfcheck.times import Times

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Comparison:
    """A kernel and its baseline on the same tensors."""

    ours: Callable[[], object]
    baseline: Callable[[], object]
    check: Callable[[], None]
    """Raises AssertionError unless both sides agree."""
    moved: int = 0
    """Minimum of bytes that must be read and written; 0 if the memory bandwidth is not the limit."""
    calls: int = 1
    """Calls per timed round; more than one for calls that take microseconds."""


@dataclass
class Case:
    """A named comparison, built on demand since its tensors can be large."""

    op: str
    name: str
    make: Callable[[str], Comparison]
    """Makes the comparison for a device."""
    rounds: int = 3
    sweep: bool = False
    """Whether it belongs to the size sweep and runs with --sweep only."""

    def __str__(self):
        return f"{self.op} {self.name}"


def speedups(ours: Times, other: Times) -> Times:
    """How many times faster ours is, one a round: what disturbs both sides of a round cancels."""
    return Times(tuple(b / a for a, b in zip(ours.samples, other.samples, strict=True)))


@dataclass(frozen=True)
class Result:
    """One comparison: alternating rounds of both sides, in microseconds a call."""

    ours: Times
    baseline: Times
    moved: int
    ours_memory: float
    """Megabytes by which a call raises the peak of the process's memory."""
    baseline_memory: float

    @property
    def ratios(self) -> Times:
        """The speedups over the baseline."""
        return speedups(self.ours, self.baseline)

    @property
    def bandwidth(self) -> float:
        """GB/s, counting the minimum of bytes."""
        return self.moved / self.ours.median / 1e3


def repeated(f: Callable[[], object], calls: int, device: str) -> Callable[[], object]:
    """Make a function that calls f several times and then waits for the device."""

    def run():
        for _ in range(calls):
            result = f()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return run


def seconds(f: Callable[[], object]) -> float:
    """Measure the wall time of one call."""
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def time_both(comparison: Comparison, rounds: int, device: str = "cpu") -> Result:
    """Time both sides in `rounds` alternating rounds, after one warm-up each."""
    ours, baseline = (repeated(f, comparison.calls, device) for f in (comparison.ours, comparison.baseline))
    baseline(), ours()
    memory = [peak_growth(side, device) for side in (comparison.ours, comparison.baseline)]
    pairs = [(seconds(baseline), seconds(ours)) for _ in range(rounds)]
    baseline_times, our_times = (
        Times(tuple(1e6 * time / comparison.calls for time in side)) for side in zip(*pairs, strict=True)
    )
    return Result(our_times, baseline_times, comparison.moved, *memory)


def peak_growth(f: Callable[[], object], device: str) -> float:
    """Measure the megabytes by which one call raises the peak of memory, its result included; NaN where unknown."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        f()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins anew
        before = _status("VmRSS")
        result = f()  # keeps the result alive
        growth = _status("VmHWM") - before
    except OSError:  # not Linux
        return float("nan")
    del result
    return max(growth, 0) * 1024 / 1e6


def _status(name: str) -> int:
    """A field of /proc/self/status, in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:"))


def bench(benchmark, case: Case, device: str):
    """Run a case as a pytest-benchmark test. Its statistics are our times; extra_info holds the ratio."""
    comparison = case.make(device)
    comparison.check()
    ours, baseline = (repeated(f, comparison.calls, device) for f in (comparison.ours, comparison.baseline))
    baseline_times = []
    benchmark.group = f"{case.op} ({device})"
    time_baseline = lambda: baseline_times.append(seconds(baseline))
    benchmark.pedantic(ours, setup=time_baseline, rounds=case.rounds, warmup_rounds=1)
    if not benchmark.stats:  # --benchmark-disable
        return
    our_time, baseline_time = (
        benchmark.stats.stats.median / comparison.calls,
        statistics.median(baseline_times[1:]) / comparison.calls,
    )
    benchmark.extra_info |= {
        "times faster than the baseline": round(baseline_time / our_time, 2),
        "calls a round": comparison.calls,
    }
    if comparison.moved:
        bandwidth = comparison.moved / our_time / 1e9
        benchmark.extra_info |= {"GB/s of the fewest bytes": round(bandwidth, 2)}
        if device == "cpu":
            benchmark.extra_info |= {"share of copying speed": round(bandwidth / copy_bandwidth(), 3)}


def retain_memory():
    """Restart this program with glibc settings that keep freed memory.

    Large tensors then reuse memory that the system need not clear first.
    """
    settings = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
    if not settings.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)


@functools.cache
def copy_bandwidth() -> float:
    """Measure the GB/s at which this machine copies 256 MB of float32, counting reads and writes."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / statistics.median(seconds(lambda: target.copy_(source)) for _ in range(7)) / 1e9


def pyramid(images: int, channels: int, sizes, layout: str, device: str, dtype=torch.float32, requires_grad=False):
    """Make one map per size, standard normal and the same in every call."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(images, channels, *size, generator=generator) for size in sizes]
    maps = [m.to(device, dtype, memory_format=LAYOUTS[layout]) for m in maps]
    return [m.requires_grad_(requires_grad) for m in maps]


def size_of(*tensors) -> int:
    """Count the bytes of some tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def assert_close(ours, baseline, rtol: float, atol: float):
    """Compare two tensors or two sequences of tensors."""
    pairs = [(ours, baseline)] if isinstance(ours, torch.Tensor) else zip(ours, baseline, strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
