"""The arguments of an op, checked and converted: every message names op, argument, what was wanted and what came."""

import functools
import operator
from typing import Any

import torch


def check(condition: bool, message: str) -> None:
    """Raises ValueError(message), which names op, argument, what was wanted and what came."""
    if not condition:
        raise ValueError(message)


def shown(value: object) -> str:
    """A value in a message: itself where it is short, else its type. Not for SymInts under torch.compile."""
    short = value is None or isinstance(value, (int, float, str))
    return repr(value) if short else type(value).__name__


def check_tensor(op: str, name: str, value: object) -> None:
    """Raises ValueError where a value is no tensor."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{op}: {name} must be a tensor, got {shown(value)}")


def as_list(op: str, name: str, value: Any, wanted: str = "a list of tensors") -> list:
    """The items of anything that can be iterated over, else ValueError."""
    try:
        return list(value)
    except TypeError:
        raise ValueError(f"{op}: {name} must be {wanted}, got {shown(value)}") from None


def integer(value: Any) -> Any:
    """Anything with __index__, numpy's integers too, as an int; a SymInt as it is; None where it is no integer."""
    if isinstance(value, (int, torch.SymInt)):
        return value
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_int(op: str, name: str, value: Any, wanted: str = "an integer") -> int:
    """:func:`integer`, else ValueError."""
    number = integer(value)
    if number is None:
        raise ValueError(f"{op}: {name} must be {wanted}, got {shown(value)}")
    return number


def as_float(op: str, name: str, value: Any) -> float:
    """Any real number, numpy's and tensors of one element too, as a float, else ValueError."""
    if isinstance(value, (int, float, torch.SymInt, torch.SymFloat)):
        return float(value)
    try:
        if not isinstance(value, (str, bytes)):  # float would read them
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise ValueError(f"{op}: {name} must be a number, got {shown(value)}")


def as_size(op: str, name: str, value: Any, one_for_both: bool = False) -> tuple[int, int]:
    """(height, width), or one number for both where that is allowed, as positive ints, else ValueError."""
    wanted = "one or two positive integers" if one_for_both else "positive (height, width)"
    side = integer(value) if one_for_both else None
    sides = [side, side] if side is not None else [integer(side) for side in as_list(op, name, value, wanted)]
    if len(sides) != 2 or not all(side is not None and side > 0 for side in sides):
        raise ValueError(f"{op}: {name} must be {wanted}, got {value!r}")
    return sides[0], sides[1]


def check_maps(op: str, name: str, tensor: torch.Tensor) -> None:
    """A floating-point feature map [N, C, H, W]."""
    check_tensor(op, name, tensor)
    check(tensor.dim() == 4, f"{op}: {name} must have shape [N, C, H, W], got {list(tensor.shape)}")
    check(
        tensor.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16),
        f"{op}: {name} must be float32, float64, float16 or bfloat16, got {tensor.dtype}",
    )


def promote(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """All tensors in their common dtype: under autocast some maps may be half and others float."""
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return [tensor.to(dtype) for tensor in tensors]
