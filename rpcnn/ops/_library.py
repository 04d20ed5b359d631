"""Loads the compiled kernels and registers their fake kernels and gradients, which are written in Python."""

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable

import torch
from torch.autograd import forward_ad

from ._examples import Example


def _load(name: str) -> str | None:
    """Import rpcnn.<name>. Returns None on success, else the reason why it could not be imported."""
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
    """Whether an op on this tensor calls a compiled op. Meta and fake tensors do too, for the op's fake kernel."""
    if CPU_MISSING:
        return False
    if tensor.device.type == "cuda" and CUDA_MISSING:
        _warn_no_cuda_kernels()
        return False
    return tensor.device.type in ("cpu", "cuda", "meta")


OPS: dict[str, Callable[[bool], Example]] = {}
"""Op name to the function that makes its example: small if its argument is True, else at the paper's size.

Filled by :func:`register`.
"""


def register(
    op: str,
    *,
    fake: Callable,
    setup_context: Callable | None = None,
    backward: Callable | None = None,
    example: Callable[[bool], Example] | None = None,
) -> None:
    """Register the Python parts of an op whose schema is in csrc/register.cpp.

    Without compiled kernels there is no such op, and only the example is added to OPS.

    Args:
        op: the name, without the namespace rpcnn.
        fake: the fake kernel: makes empty results with the right shapes, dtypes and memory formats.
        setup_context, backward: see torch.library.register_autograd; None if the op has no gradient.
        example: makes an example call of the op; None for an op that only computes the gradient of another op.
    """
    if example is not None:
        OPS[op] = example
    if CPU_MISSING:
        return
    torch.library.register_fake(f"rpcnn::{op}", fake)
    if backward is not None:
        torch.library.register_autograd(f"rpcnn::{op}", backward, setup_context=setup_context)


def dense_layout(maps: torch.Tensor) -> torch.memory_format:
    """Return the memory format of a kernel's output: channels_last if the input has it, else contiguous."""
    last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def refuse_forward_ad(op: str, *tensors: torch.Tensor) -> None:
    """Raise NotImplementedError if a tensor carries a forward-mode tangent.

    torch.library.register_autograd drops tangents silently, so a jvp through the op would be zero.
    """
    for tensor in tensors:
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(f"{op}: forward-mode differentiation (jvp) is not supported; use reverse mode")
