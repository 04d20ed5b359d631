"""MobileNetV2 (Sandler et al. 2018) without its classifier, with the module names of torchvision's weights."""

import itertools
from collections.abc import Callable

from torch import Tensor, nn

from .freeze import FreezableBackbone
from .frozen_norm import norm_layer

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""(expansion, channels, blocks, stride of the first block) of each stage."""
STEM = 32  # channels
LAST_BLOCKS = (3, 6, 13, 17)  # indices of the last blocks of the stages of C2..C5


class MobileNetV2(FreezableBackbone):
    """Backbone that maps images to C2..C5.

    `channels` holds the numbers of channels of C2..C5; `body` has torchvision's module names, without "features.".

    Args:
        norm, freeze_at, width: see `ResNet`.

    Raises:
        ValueError: unknown norm, or freeze_at outside 0..5.
    """

    name = "mobilenet_v2"

    def __init__(self, *, norm: str, freeze_at: int, width: float):
        super().__init__()
        self.width = width
        new_norm = norm_layer(norm)
        channels = rounded(STEM * width)
        blocks: list[nn.Module] = [conv_norm(3, channels, new_norm, kernel=3, stride=2)]
        for expansion, wide, depth, stride in STAGES:
            for i in range(depth):
                out = rounded(wide * width)
                blocks.append(InvertedResidual(channels, out, new_norm, stride=1 if i else stride, expansion=expansion))
                channels = out
        self.body = nn.Sequential(*blocks)  # not the last 1x1 convolution, which serves the classifier
        self.channels = tuple(self.body[i].out_channels for i in LAST_BLOCKS)
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        ends = [0, 2, *(i + 1 for i in LAST_BLOCKS)]
        self.freeze([self.body[start:end] for start, end in itertools.pairwise(ends)], freeze_at)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [N, 3, H, W] to C2..C5 [N, C_l, H / s, W / s], s = 4, 8, 16, 32; H and W are multiples of 32."""
        features = []
        for i, block in enumerate(self.body):
            x = block(x)
            if i in LAST_BLOCKS:
                features.append(x)
        return features


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands, a 3x3 convolution of each channel, a 1x1 convolution that projects.

    The input is added where stride and channels leave its shape as it is.
    """

    def __init__(
        self, in_channels: int, out_channels: int, new_norm: Callable[[int], nn.Module], *, stride: int, expansion: int
    ):
        super().__init__()
        self.out_channels, self.has_shortcut = out_channels, stride == 1 and in_channels == out_channels
        hidden = in_channels * expansion
        expand = [conv_norm(in_channels, hidden, new_norm, kernel=1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            conv_norm(hidden, hidden, new_norm, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            new_norm(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


def conv_norm(
    in_channels: int,
    channels: int,
    new_norm: Callable[[int], nn.Module],
    *,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """A convolution without bias, a norm and ReLU6."""
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, new_norm(channels), nn.ReLU6(inplace=True))


def rounded(channels: float) -> int:
    """The multiple of 8 nearest to a number of channels, at least 8 and at least 90 % of it."""
    nearest = max(int(channels + 4) // 8 * 8, 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
