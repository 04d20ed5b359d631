"""Your own backbone: torchvision's ConvNeXt-Tiny or Swin-T in the place of the ResNet.

    python -m rpcnn.train --model.backbone examples.own_backbone:convnext_tiny

Run it where ``examples`` can be imported, here the root of the repository. The name after the colon is called without
arguments and gives the backbone: a module whose `channels` are the widths of C2..C5 and whose forward returns these
four maps, at strides 4, 8, 16 and 32. Nothing else is asked of it. What it freezes and which weights it starts from are
its own choice.
"""

import torchvision
from torch import Tensor, nn


class ConvNeXtBackbone(nn.Module):
    """C2..C5 of torchvision's ConvNeXt: the results of its four stages.

    model: whose `features` are the stem, then stage and down-sampling in turn; channels: widths of the stages.
    """

    def __init__(self, model: nn.Module, channels: tuple[int, int, int, int]):
        super().__init__()
        self.features = model.features  # without the classifier
        self.channels = channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [N, 3, H, W] to C2..C5 [N, C_l, H / s, W / s], s = 4, 8, 16, 32."""
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i % 2 == 1:  # a stage
                maps.append(x)
        return maps


class SwinBackbone(ConvNeXtBackbone):
    """C2..C5 of torchvision's Swin transformer, whose stages follow each other as ConvNeXt's do."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [features.permute(0, 3, 1, 2) for features in super().forward(x)]  # it computes in [N, H, W, C]


def convnext_tiny() -> ConvNeXtBackbone:
    """With random weights; weights="DEFAULT" downloads those of ImageNet."""
    return ConvNeXtBackbone(torchvision.models.convnext_tiny(weights=None), (96, 192, 384, 768))


def swin_tiny() -> SwinBackbone:
    """With random weights; weights="DEFAULT" downloads those of ImageNet."""
    return SwinBackbone(torchvision.models.swin_t(weights=None), (96, 192, 384, 768))
