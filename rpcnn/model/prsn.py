"""Parsing re-scoring network, PRSN (Sec. 3.4): predicts the quality of each parsing map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ConvReLU, channel_softmax, linear, spatial_mean


class PRSN(nn.Module):
    """Regresses the mIoU of each parsing map from the parsing feature and the map itself.

    Args:
        parsing_channels: of the parsing feature.
        num_classes: K, background included.
        channels: of the two 3x3 convolutions.
        hidden: channels of the two fully connected layers.
        input: "probabilities", or "logits" (released code).
        second_stride: stride of the second convolution: 1, or 2 (released code).

    Raises:
        ValueError: unknown input.
    """

    def __init__(
        self,
        parsing_channels: int,
        num_classes: int,
        *,
        channels: int = 128,
        hidden: int = 256,
        input: str = "probabilities",
        second_stride: int = 1,
    ):
        super().__init__()
        if input not in ("probabilities", "logits"):
            raise ValueError(f"PRSN: input must be 'probabilities' or 'logits', got {input!r}")
        self.input = input
        self.conv1 = ConvReLU(parsing_channels + num_classes, channels, 3, padding=1)
        self.conv2 = ConvReLU(channels, channels, 3, stride=second_stride, padding=1)
        self.fc1 = linear(channels, hidden)
        self.fc2 = linear(hidden, hidden)
        self.iou = linear(hidden, 1, std=0.01)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, feature: Tensor, logits: Tensor, probabilities: Tensor | None = None) -> Tensor:
        """Predict the mIoU [R] of each parsing map, not clamped to [0, 1].

        The map is max-pooled s x s (4 x 4 in the paper) to the resolution of the feature. Gradients flow to both.

        Args:
            feature: parsing feature [R, C, h, w].
            logits: [R, K, s h, s w].
            probabilities: `channel_softmax(logits)` if already computed.
        """
        maps = logits
        if self.input == "probabilities":
            maps = channel_softmax(logits) if probabilities is None else probabilities
        return self.score(feature, F.max_pool2d(maps, maps.shape[-1] // feature.shape[-1]))

    def score(self, feature: Tensor, pooled: Tensor) -> Tensor:
        """Predict as `forward` from the feature [R, C, h, w] and the map that is already max-pooled, [R, K, h, w]."""
        maps = pooled.to(feature.dtype)
        if feature.is_contiguous(memory_format=torch.channels_last):  # cat would copy the feature to the other layout
            maps = maps.contiguous(memory_format=torch.channels_last)
        x = self.conv2(self.conv1(torch.cat([feature, maps], dim=1)))
        x = spatial_mean(x)
        for fc in (self.fc1, self.fc2):
            x = F.relu(fc(x), inplace=True)
        return self.iou(x)[:, 0].float()
