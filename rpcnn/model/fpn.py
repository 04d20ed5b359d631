"""Feature pyramid (Fig. 2): C2..C5 of the backbone to P2..P6, all with the same number of channels."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import conv_gn, resize_nearest


class FPN(nn.Module):
    """Lateral 1x1 and output 3x3 convolutions, each with GroupNorm and no ReLU (released code; the paper is silent).

    Args:
        in_channels: of C2..C5.
        channels: of every level of the pyramid.
        num_groups: of each GroupNorm.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, *, num_groups: int):
        super().__init__()
        self.lateral = nn.ModuleList(
            conv_gn(c, channels, kernel=1, num_groups=num_groups, relu=False) for c in in_channels
        )
        self.output = nn.ModuleList(
            conv_gn(channels, channels, kernel=3, num_groups=num_groups, relu=False) for _ in in_channels
        )
        for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """C2..C5 [N, C_l, H / 2^l, W / 2^l] to P2..P6 [N, channels, H / 2^l, W / 2^l]; P6 is P5 at stride 2."""
        merged: list[Tensor] = []  # from coarse to fine
        for (conv, norm), feature in zip(reversed(self.lateral), reversed(features), strict=True):
            coarser = resize_nearest(merged[-1], feature.shape[-2:]) if merged else None
            merged.append(norm(conv(feature), residual=coarser))
        merged.reverse()
        pyramid = [output(feature) for output, feature in zip(self.output, merged, strict=True)]
        return [*pyramid, F.max_pool2d(pyramid[-1], kernel_size=1, stride=2)]
