"""Normalization layers of a backbone: frozen batch norm, and selection by name."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .layers import GroupNorm


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization with constant statistics: one scale and one shift per channel.

    Loading the state dict of a BatchNorm2d folds its running statistics in: the scale is weight / sqrt(var + eps), the
    shift bias - mean * scale. Both are Parameters without gradient, so that they are counted and saved.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        own = {key: value for key, value in state_dict.items() if key.startswith(prefix)}  # a copy: pop below
        own.pop(f"{prefix}num_batches_tracked", None)
        keys = [prefix + name for name in ("weight", "bias", "running_mean", "running_var")]
        if all(key in own for key in keys):
            weight, bias, mean, var = map(own.pop, keys)
            scale = weight * torch.rsqrt(var + self.eps)
            own |= {f"{prefix}weight": scale, f"{prefix}bias": bias - mean * scale}
        super()._load_from_state_dict(own, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """Compute weight * x + bias of x [N, C, H, W], in the dtype of x."""
        scale, shift = (p.to(x.dtype)[:, None, None] for p in (self.weight, self.bias))
        return x * scale + shift

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


def group_norm(channels: int) -> GroupNorm:
    """GroupNorm with gcd(32, channels) groups: backbones have numbers of channels such as 24 and 144."""
    return GroupNorm(math.gcd(32, channels), channels)


NORMS = {"frozen_bn": FrozenBatchNorm2d, "gn": group_norm, "bn": nn.BatchNorm2d}


def norm_layer(name: str) -> Callable[[int], nn.Module]:
    """The function that makes a norm layer from its number of channels, by name. Raises ValueError if unknown."""
    if name not in NORMS:
        raise ValueError(f"backbone: norm must be one of {', '.join(NORMS)}, got {name!r}")
    return NORMS[name]
