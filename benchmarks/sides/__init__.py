"""What each side of peers.py runs: one file per library, which is imported only in that library's environment.

A file has one function for each thing it is timed at. It takes the case's arrays by name and a number of threads,
makes everything that is made once, and returns a Timed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Timed(NamedTuple):
    """What is timed, and how to compare what it returns."""

    run: Callable[[], object]
    read: Callable[[object], np.ndarray]
    """From what `run` returned to kept indices [K], pooled values [R, C, h, w] or one average precision in 0..1."""
    threads: str
    """How many threads the library uses, and how it was told."""
