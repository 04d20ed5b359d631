"""Checks and converts the arguments of ops. Every message reads "<op>: <argument> must be <expected>, got <value>"."""

import functools
import operator
from typing import Any

import torch


def check(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)


def shown(value: object) -> str:
    """Format a value for a message: its repr if it is a number, a string or None, else its type's name.

    Not for SymInts under torch.compile.
    """
    short = value is None or isinstance(value, (int, float, str))
    return repr(value) if short else type(value).__name__


def check_tensor(op: str, name: str, value: object) -> None:
    """Raise ValueError unless the value is a tensor."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{op}: {name} must be a tensor, got {shown(value)}")


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
    """Convert a value with :func:`integer`. Raises ValueError if it is not an integer."""
    number = integer(value)
    if number is None:
        raise ValueError(f"{op}: {name} must be {expected}, got {shown(value)}")
    return number


def as_float(op: str, name: str, value: Any) -> float:
    """Convert a real number, a numpy number or a tensor of one element to float. Raises ValueError for other values."""
    if isinstance(value, (int, float, torch.SymInt, torch.SymFloat)):
        return float(value)
    try:
        if not isinstance(value, (str, bytes)):  # float() would parse them
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise ValueError(f"{op}: {name} must be a number, got {shown(value)}")


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
    return sides[0], sides[1]


def check_maps(op: str, name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError unless the tensor is a floating-point feature map [N, C, H, W]."""
    check_tensor(op, name, tensor)
    check(tensor.dim() == 4, f"{op}: {name} must have shape [N, C, H, W], got {list(tensor.shape)}")
    check(
        tensor.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16),
        f"{op}: {name} must be float32, float64, float16 or bfloat16, got {tensor.dtype}",
    )


def promote(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Convert all tensors to their common dtype. Under autocast some maps may be float16 and others float32."""
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return [tensor.to(dtype) for tensor in tensors]
