"""Statistics of repeated measurements, and what they say about two versions of one kernel."""

import math
import statistics
from dataclasses import dataclass

CONFIDENCE = 0.95
SAME = 0.02
"""Medians whose ratio surely lies within 1 ± SAME count as the same: clocks differ by about that from run to run."""


@dataclass(frozen=True)
class Times:
    """Times of one call in microseconds, at least one: each the mean over the calls of one sample."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """What a quarter and three quarters of the samples do not exceed, interpolated."""
        if len(self.samples) == 1:
            return self.samples[0], self.samples[0]
        first, _, third = statistics.quantiles(self.samples, n=4, method="inclusive")
        return first, third

    @property
    def outliers(self) -> int:
        """How many samples lie more than 1.5 interquartile ranges outside the quartiles (Tukey's fences)."""
        first, third = self.quartiles
        reach = 1.5 * (third - first)
        return sum(not first - reach <= sample <= third + reach for sample in self.samples)

    @property
    def interval(self) -> tuple[float, float]:
        """Two samples between which the true median lies with at least 95 % confidence, whatever the distribution.

        As many samples fall below the median as heads in that many coin tosses. Fewer than six samples give their
        range, with less confidence.
        """
        ordered, count = sorted(self.samples), len(self.samples)
        below, tail = 0, 0.5**count  # the chance that at most `below` samples lie below the median
        while (tail := tail + math.comb(count, below + 1) * 0.5**count) <= (1 - CONFIDENCE) / 2:
            below += 1
        return ordered[below], ordered[-1 - below]


def ratio_interval(before: Times, after: Times) -> tuple[float, float]:
    """The lowest and the highest ratio after / before that the intervals of both medians allow."""
    (before_low, before_high), (after_low, after_high) = before.interval, after.interval
    return after_low / before_high, after_high / before_low


def verdict(before: Times, after: Times) -> str:
    """Say whether `after` is "same", "faster" or "slower"; "unclear" where the intervals do not tell."""
    low, high = ratio_interval(before, after)
    if low >= 1 - SAME and high <= 1 + SAME:
        return "same"
    if high < 1:
        return "faster"
    return "slower" if low > 1 else "unclear"
