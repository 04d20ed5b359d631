"""Loads the compiled kernels and registers what Python adds to them."""

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable

import torch
from torch.autograd import forward_ad

from ._examples import Example


def _load(name: str) -> str | None:
    """Imports rpcnn.<name>; None on success, else the reason why it is not there."""
    if importlib.util.find_spec(f"rpcnn.{name}") is None:
        return "it was not built"
    try:
        importlib.import_module(f"rpcnn.{name}")
    except ImportError as error:
        return f"it does not load: {error}"
    return None


CPU_MISSING = _load("_C")
CUDA_MISSING = "rpcnn._C is missing" if CPU_MISSING else _load("_C_cuda")
if CPU_MISSING:
    warnings.warn(
        f"rpcnn: no compiled kernels (rpcnn._C: {CPU_MISSING}); the ops run on their plain-PyTorch references, which "
        "are slower. Build them with `pip install -e .`; `python -m rpcnn.info` tells more.",
        stacklevel=2,
    )


@functools.cache
def _warn_no_cuda_kernels() -> None:
    warnings.warn(
        f"rpcnn: no CUDA kernels (rpcnn._C_cuda: {CUDA_MISSING}); CUDA tensors run on the plain-PyTorch references.",
        stacklevel=3,
    )


def compiled(tensor: torch.Tensor) -> bool:
    """Whether ops on this tensor's device go to a compiled kernel (meta and fake tensors follow the schemas)."""
    if CPU_MISSING:
        return False
    if tensor.device.type == "cuda" and CUDA_MISSING:
        _warn_no_cuda_kernels()
        return False
    return tensor.device.type in ("cpu", "cuda", "meta")


OPS: dict[str, Callable[[bool], Example]] = {}
"""Every op by name, with the function that makes its example, small or of the paper's size. Filled by `register`."""


def register(
    op: str,
    *,
    fake: Callable,
    setup_context: Callable | None = None,
    backward: Callable | None = None,
    example: Callable[[bool], Example] | None = None,
) -> None:
    """Adds what is written in Python to rpcnn::<op> of csrc/register.cpp; without compiled kernels only OPS grows.

    Args:
        fake: the shapes, dtypes and layouts of the results, for meta and fake tensors.
        setup_context, backward: see torch.library.register_autograd; None where the op has no gradient.
        example: makes a call of the op; None for an op that only computes another one's gradient.
    """
    if example is not None:
        OPS[op] = example
    if CPU_MISSING:
        return
    torch.library.register_fake(f"rpcnn::{op}", fake)
    if backward is not None:
        torch.library.register_autograd(f"rpcnn::{op}", backward, setup_context=setup_context)


def dense_layout(maps: torch.Tensor) -> torch.memory_format:
    """The memory format that kernels give their outputs: channels_last where the input is, else contiguous."""
    last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def refuse_forward_ad(op: str, *tensors: torch.Tensor) -> None:
    """Raises where a tensor carries a forward-mode tangent.

    torch.library.register_autograd drops tangents silently, so that a jvp through the op would be zero.
    """
    for tensor in tensors:
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(f"{op}: forward-mode differentiation (jvp) is not supported; use reverse mode")
