"""Global semantic enhanced feature pyramid network, GSE-FPN (Sec. 3.3, Fig. 3)."""

from torch import Tensor, nn

from rpcnn import ops

from .layers import conv_gn


class GSEFPN(nn.Module):
    """P2..P6 to the global semantic segmentation and the enhanced pyramid S2..S6.

    Args:
        channels: of the feature maps.
        num_classes: semantic classes K, background included.
        num_groups: of each GroupNorm.
        num_convs: number of 3x3 convolutions of the global semantic feature.
        levels: number of levels that are enhanced and returned (5: S2..S6).
        embedding: apply a further 3x3 block to the feature before it is added to the pyramid (released code).
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        num_groups: int,
        num_convs: int = 4,
        levels: int = 5,
        embedding: bool = False,
    ):
        super().__init__()
        self.levels = levels
        self.lateral = nn.ModuleList(
            conv_gn(channels, channels, kernel=1, num_groups=num_groups) for _ in range(5)
        )  # P2..P6
        self.convs = nn.Sequential(
            *(conv_gn(channels, channels, kernel=3, num_groups=num_groups) for _ in range(num_convs))
        )
        self.logits = nn.Conv2d(channels, num_classes, 1)
        self.embedding = conv_gn(channels, channels, kernel=3, num_groups=num_groups) if embedding else nn.Identity()
        nn.init.kaiming_normal_(self.logits.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.logits.bias)

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """P2..P6 [N, C, H / 2^l, W / 2^l] to logits [N, K, H / 4, W / 4] and the first `levels` of S2..S6."""
        # The paper upsamples, then applies the 1x1 convolution. A 1x1 convolution commutes with interpolation, so it
        # runs at each level's own resolution: 4 of the 5 are then almost free.
        convolved = [block[0](p) for block, p in zip(self.lateral, pyramid, strict=True)]
        norms = [block[1] for block in self.lateral]
        fused = ops.gse_fuse(
            convolved,
            [norm.weight for norm in norms],
            gn_biases=[norm.bias for norm in norms],
            num_groups=norms[0].num_groups,
            eps=norms[0].eps,
            align_corners=True,
        )
        feature = self.convs(fused)
        enhanced = ops.downsample_add(self.embedding(feature), pyramid[: self.levels])
        return self.logits(feature), enhanced
