"""The operators of rpcnn. Each has a ``<op>_reference`` beside it: plain PyTorch, its definition and its fallback."""

from .downsample_add import downsample_add, downsample_add_reference

__all__ = [
    "downsample_add",
    "downsample_add_reference",
]
