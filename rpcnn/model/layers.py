"""Building blocks of the heads: convolution, normalization and ReLU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpcnn import ops
from rpcnn.runtime.precision import autocast_enabled


class GroupNorm(nn.GroupNorm):
    """GroupNorm with an optional residual and ReLU in one op; keeps half types and channels_last, unlike PyTorch's.

    Args:
        num_groups, num_channels: see torch.nn.GroupNorm.
        relu: whether ReLU follows.
    """

    def __init__(self, num_groups: int, num_channels: int, relu: bool = False):
        super().__init__(num_groups, num_channels)
        self.relu = relu

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize maps [N, C, H, W] and add the residual, before the ReLU."""
        return ops.group_norm(
            x, self.num_groups, weight=self.weight, bias=self.bias, eps=self.eps, relu=self.relu, residual=residual
        )


def conv_gn(in_channels: int, channels: int, kernel: int, num_groups: int, dilation: int = 1, relu: bool = True):
    """A convolution with "same" padding and no bias, then GroupNorm(num_groups) and, if `relu`, ReLU.

    Initialized with Kaiming normal (fan out); the norm with weight 1 and bias 0.
    """
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, channels, kernel, padding=padding, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, GroupNorm(num_groups, channels, relu=relu))


class ConvReLU(nn.Conv2d):
    """A convolution and ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x), inplace=True)


def channel_softmax(logits: Tensor) -> Tensor:
    """Softmax of logits [N, K, H, W] over K in float32, in the memory format of the logits.

    torch's softmax over dim 1 would not keep channels_last.
    """
    return (
        logits.float().movedim(1, -1).softmax(-1).movedim(-1, 1) if logits.stride(1) == 1 else logits.float().softmax(1)
    )


def resize_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """F.interpolate with mode "nearest", in the dtype of x: it copies values, but autocast would do that in float32."""
    if not autocast_enabled(x.device):
        return F.interpolate(x, size=size, mode="nearest")
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, size=size, mode="nearest")


def spatial_mean(x: Tensor) -> Tensor:
    """Mean [N, C] over the positions of maps [N, C, H, W]; the gradient has the memory format of the maps.

    x.mean((2, 3)) computes the same numbers, but its gradient is never channels_last.
    """
    last = x.is_contiguous(memory_format=torch.channels_last)
    return x.movedim(1, -1).flatten(1, 2).mean(1) if last else x.mean(dim=(2, 3))


def linear(in_features: int, out_features: int, std: float | None = None) -> nn.Linear:
    """A linear layer with bias 0 and weights from normal(0, std), or Kaiming uniform with gain 1 if std is None."""
    layer = nn.Linear(in_features, out_features)
    if std is None:
        nn.init.kaiming_uniform_(layer.weight, a=1)
    else:
        nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer
