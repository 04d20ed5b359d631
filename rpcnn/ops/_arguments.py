"""Checks and converts the arguments of ops. Every message reads "<op>: <argument> must be <expected>, got <value>"."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The dtypes of maps, boxes and scores."""
LARGEST_SIZE = 2**31 - 1
"""Of a size or count that is given as a number. Beyond it no memory suffices, and the allocator names no argument."""


def check(condition: bool, message: Callable[[], str]) -> None:
    """Raise ValueError(message()) unless the condition holds.

    The message is made only then: formatting a SymInt under torch.compile would compile anew for every size.
    """
    if not condition:
        raise ValueError(message())


def shown(value: object) -> str:
    """Format a value for a message: its repr if it is a number, a string or None, else its type's name.

    Not for SymInts under torch.compile.
    """
    short = value is None or isinstance(value, (int, float, str))
    return repr(value) if short else type(value).__name__


def check_tensor(op: str, name: str, value: object) -> None:
    """Raise ValueError unless the value is a dense tensor."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{op}: {name} must be a tensor, got {shown(value)}")
    if value.layout != torch.strided or value.is_nested:
        kind = "a nested one" if value.is_nested else str(value.layout)
        raise ValueError(f"{op}: {name} must be a dense tensor, got {kind}")


def check_floats(op: str, name: str, value: object) -> None:
    """Raise ValueError unless the value is a dense tensor of a dtype in FLOATS."""
    check_tensor(op, name, value)
    assert isinstance(value, torch.Tensor)
    check(
        value.dtype in FLOATS, lambda: f"{op}: {name} must be float32, float64, float16 or bfloat16, got {value.dtype}"
    )


def as_list(op: str, name: str, value: Any, expected: str = "a list of tensors") -> list:
    """Convert an iterable to a list. Raises ValueError for other values."""
    try:
        return list(value)
    except TypeError:
        raise ValueError(f"{op}: {name} must be {expected}, got {shown(value)}") from None


def integer(value: Any) -> Any:
    """Convert an int or a numpy integer to int. A SymInt stays as it is; other values give None."""
    if isinstance(value, (int, torch.SymInt)):
        return value
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_int(op: str, name: str, value: Any, expected: str = "an integer") -> int:
    """Convert a value with :func:`integer`. Raises ValueError if it is not an integer of at most 64 bits."""
    number = integer(value)
    if number is None or (isinstance(number, int) and not -(2**63) <= number < 2**63):
        raise ValueError(f"{op}: {name} must be {expected}, got {shown(value)}")
    return number


def as_flag(op: str, name: str, value: Any) -> bool:
    """Convert a bool, 0 or 1, or a scalar array or tensor of them. Raises ValueError for other values."""
    if isinstance(value, (bool, torch.SymBool)):
        return bool(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    number = integer(value)
    if number not in (0, 1):
        raise ValueError(f"{op}: {name} must be True or False, got {shown(value)}")
    return bool(number)


def as_float(op: str, name: str, value: Any, finite: bool = True) -> float:
    """Convert a real number, a numpy number or a tensor of one element to float.

    Raises:
        ValueError: the value is anything else, or it is infinite or NaN and `finite` is set.
    """
    number = _as_float(value)
    if number is None:
        raise ValueError(f"{op}: {name} must be a number, got {shown(value)}")
    if finite and not number - number == 0:  # math.isfinite cannot be traced by torch.compile
        raise ValueError(f"{op}: {name} must be a finite number, got {number}")
    return number


def _as_float(value: Any) -> float | None:
    try:
        return None if isinstance(value, (str, bytes)) else float(value)  # float() would parse text
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def as_size(op: str, name: str, value: Any, one_for_both: bool = False) -> tuple[int, int]:
    """Convert a size to two positive ints.

    Args:
        op, name: the op and the argument, for the message.
        value: (height, width), or one integer for both if `one_for_both`.

    Raises:
        ValueError: the value is anything else.
    """
    expected = "one or two positive integers" if one_for_both else "positive (height, width)"
    side = integer(value) if one_for_both else None
    sides = [side, side] if side is not None else [integer(side) for side in as_list(op, name, value, expected)]
    if len(sides) != 2 or not all(side is not None and side > 0 for side in sides):
        raise ValueError(f"{op}: {name} must be {expected}, got {value!r}")
    if any(isinstance(side, int) and side > LARGEST_SIZE for side in sides):
        raise ValueError(f"{op}: {name} must be at most {LARGEST_SIZE} each, got {value!r}")
    return sides[0], sides[1]


def check_maps(op: str, name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError unless the tensor is a floating-point feature map [N, C, H, W]."""
    check_tensor(op, name, tensor)
    check(tensor.dim() == 4, lambda: f"{op}: {name} must have shape [N, C, H, W], got {list(tensor.shape)}")
    check_floats(op, name, tensor)


def promote(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Convert all tensors to their common dtype. Under autocast some maps may be float16 and others float32."""
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return [tensor.to(dtype) for tensor in tensors]
