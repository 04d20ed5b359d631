"""MobileNetV2 of torchvision, without its classifier."""

import itertools

import torchvision
from torch import Tensor

from .freeze import FreezableBackbone
from .frozen_norm import norm_layer

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
        network = torchvision.models.mobilenet_v2(weights=None, width_mult=width, norm_layer=norm_layer(norm))
        self.body = network.features[:18]  # not the last 1x1 convolution, which serves the classifier
        self.channels = tuple(self.body[i].out_channels for i in LAST_BLOCKS)
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
