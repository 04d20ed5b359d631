"""How the benchmarks time: a kernel and its peer take turns, in one process, on the same tensors.

Each bench_<op>.py lists its CASES. `pytest benchmarks/ --benchmark-only` times our side, with the peer run before every
round, asserts that both agree, and puts the ratio of the medians beside it; `python benchmarks/report.py` writes the
same numbers to RESULTS.md. Times of one machine mean little, ratios from interleaved rounds more.
"""

import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Comparison:
    """A kernel and its peer over the same tensors."""

    ours: Callable[[], object]
    peer: Callable[[], object]
    check: Callable[[], None]
    """Raises AssertionError unless both give the same."""
    moved: int = 0
    """Fewest bytes that must be read and written; 0 where bytes are not what limits."""
    calls: int = 1
    """Calls in one timed round, for those that take microseconds."""


@dataclass
class Case:
    """A named comparison, built on demand: its tensors can be large."""

    op: str
    name: str
    make: Callable[[str], Comparison]
    """Device to comparison."""
    rounds: int = 3
    sweep: bool = False
    """Only part of the fuller run (--sweep)."""

    def __str__(self):
        return f"{self.op} {self.name}"


@dataclass
class Result:
    """Medians of one comparison, in seconds for one call."""

    ours: float
    peer: float
    moved: int

    @property
    def ratio(self) -> float:
        """How many times faster than the peer."""
        return self.peer / self.ours

    @property
    def bandwidth(self) -> float:
        """GB/s of the fewest bytes."""
        return self.moved / self.ours / 1e9


def repeated(f: Callable[[], object], calls: int, device: str) -> Callable[[], object]:
    """f, called so often, and waited for."""

    def run():
        for _ in range(calls):
            result = f()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return run


def seconds(f: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def time_both(comparison: Comparison, rounds: int, device: str = "cpu") -> Result:
    """Both sides in turn after one warm-up each, `rounds` times."""
    ours, peer = (repeated(f, comparison.calls, device) for f in (comparison.ours, comparison.peer))
    peer(), ours()
    pairs = [(seconds(peer), seconds(ours)) for _ in range(rounds)]
    theirs, mine = (statistics.median(side) / comparison.calls for side in zip(*pairs, strict=True))
    return Result(mine, theirs, comparison.moved)


def bench(benchmark, case: Case, device: str):
    """The case as a pytest-benchmark test: our times are its statistics, the ratio its extra information."""
    comparison = case.make(device)
    comparison.check()
    ours, peer = (repeated(f, comparison.calls, device) for f in (comparison.ours, comparison.peer))
    theirs = []
    benchmark.group = f"{case.op} ({device})"
    benchmark.pedantic(ours, setup=lambda: theirs.append(seconds(peer)), rounds=case.rounds, warmup_rounds=1)
    if not benchmark.stats:  # --benchmark-disable
        return
    mine, peer_time = benchmark.stats.stats.median / comparison.calls, statistics.median(theirs[1:]) / comparison.calls
    benchmark.extra_info |= {
        "times faster than the peer": round(peer_time / mine, 2),
        "calls a round": comparison.calls,
    }
    if comparison.moved:
        bandwidth = comparison.moved / mine / 1e9
        benchmark.extra_info |= {"GB/s of the fewest bytes": round(bandwidth, 2)}
        if device == "cpu":
            benchmark.extra_info |= {"share of copying speed": round(bandwidth / copy_bandwidth(), 3)}


def retain_memory():
    """Starts again with glibc keeping what is freed: no large tensor is fresh memory that must be cleared first."""
    settings = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
    if not settings.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)


@functools.cache
def copy_bandwidth() -> float:
    """GB/s at which this machine copies 256 MB of floats to another place, read and write counted."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / statistics.median(seconds(lambda: target.copy_(source)) for _ in range(7)) / 1e9


def pyramid(images: int, channels: int, sizes, layout: str, device: str, dtype=torch.float32, requires_grad=False):
    """One map per size, standard normal, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(images, channels, *size, generator=generator) for size in sizes]
    maps = [m.to(device, dtype, memory_format=LAYOUTS[layout]) for m in maps]
    return [m.requires_grad_(requires_grad) for m in maps]


def size_of(*tensors) -> int:
    """Bytes of some tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def assert_close(ours, peer, rtol: float, atol: float):
    """Compares two tensors or two sequences of them."""
    pairs = [(ours, peer)] if isinstance(ours, torch.Tensor) else zip(ours, peer, strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)
