"""The learning rate of each iteration: linear warm-up, then step decay by 0.1 (Sec. 4.1) or half a cosine to 0."""

import math
from collections.abc import Sequence

WARMUP_FACTOR = 1e-4  # released code


def learning_rate(
    iteration: int,
    base: float,
    batch_size: int,
    steps: Sequence[int],
    warmup_iterations: int,
    cosine_over: int | None = None,
) -> float:
    """The learning rate of an iteration, counted from 1.

    Args:
        base: learning rate for batch size 16; it is scaled linearly with the batch size.
        steps: iterations at which the rate is multiplied by 0.1.
        warmup_iterations: number of iterations in which the rate rises from WARMUP_FACTOR times its value.
        cosine_over: if given, replaces the steps by half a cosine that reaches 0 at this last iteration.
    """
    rate = base * batch_size / 16
    if iteration <= warmup_iterations:
        progress = iteration / warmup_iterations
        return rate * (WARMUP_FACTOR * (1 - progress) + progress)
    if cosine_over is not None:
        progress = (iteration - warmup_iterations) / max(cosine_over - warmup_iterations, 1)
        return rate * (1 + math.cos(math.pi * progress)) / 2
    return rate * 0.1 ** sum(step <= iteration for step in steps)
