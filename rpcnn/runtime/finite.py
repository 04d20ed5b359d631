"""Looking for numbers that are not finite."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def broken_tensors(values: Any) -> list[str]:
    """The dotted names of the floating-point tensors in nested dictionaries that hold NaN or infinity.

    Waits for the device once, and reads every tensor once.
    """
    named = [(name, tensor) for name, tensor in _tensors(values) if tensor.is_floating_point() and tensor.numel()]
    if not named:
        return []
    # The largest magnitude; NaN and infinity pass.
    norms = torch._foreach_norm([tensor.detach() for _, tensor in named], float("inf"))
    finite = torch.stack([norm.double() for norm in norms]).isfinite().tolist()
    return [name for (name, _), good in zip(named, finite, strict=True) if not good]


def _tensors(values: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(values, Tensor):
        yield name, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
