"""Times calls in batches that are long enough for the clock and rotate through several sets of inputs."""

from collections.abc import Callable, Sequence
from typing import Protocol

from .times import Times

Call = Callable[[], object]
SAMPLE = 2000.0
"""Microseconds of a sample, at least: the start of a batch and the clock's own steps vanish in it."""
CALLS = 200
"""Calls of a sample, at most, unless there are more sets of inputs."""
SAMPLES = 30
FEWEST = 7
BUDGET = 2e6
"""Microseconds for all samples; long calls get fewer, but FEWEST."""


class Clock(Protocol):
    """Measures how long batches take."""

    def times(self, batch: Call, count: int) -> list[float]:
        """Run the batch `count` times in a row; return the microseconds of each."""


def in_turn(calls: Sequence[Call], count: int) -> Call:
    """A batch of `count` calls, one set of inputs after the other."""

    def batch():
        for index in range(count):
            calls[index % len(calls)]()

    return batch


def calls_a_sample(once: float, sets: int) -> int:
    """How many calls of `once` microseconds make a sample: a multiple of the sets, so that all samples are alike."""
    wanted = min(CALLS, SAMPLE / max(once, 1e-3))
    return sets * max(1, -int(-wanted // sets))


def measure(calls: Sequence[Call], clock: Clock, prepare: Callable[[Call], Call] = lambda batch: batch) -> Times:
    """Time `calls`, which do the same work on inputs in different memory.

    Args:
        calls: one call per set of inputs; a single one finds its inputs in the cache if they fit.
        clock: the device's clock.
        prepare: makes a batch ready to run, as a CUDA graph does.
    """
    all_sets = in_turn(calls, len(calls))
    all_sets()  # what happens once: allocations, lazy loading
    once = min(clock.times(all_sets, 3)) / len(calls)
    count = calls_a_sample(once, len(calls))
    batch = prepare(in_turn(calls, count))
    clock.times(batch, 2)
    samples = max(FEWEST, min(SAMPLES, int(BUDGET / max(once * count, 1e-3))))
    return Times(tuple(time / count for time in clock.times(batch, samples)))
