"""Parsing branch (Fig. 2): geometric and context encoding (GCE) of each person's RoI, and the parsing map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import last_pixels
from .layers import conv_gn


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the RoI's mean, a 1x1 and dilated 3x3 convolutions, side by side.

    Gives the mean's features [R, channels, 1, 1], the same at every position, and the others' [R, rest, h, w];
    `out_channels` counts both.
    """

    def __init__(self, in_channels: int, channels: int, dilations, num_groups: int):
        super().__init__()
        self.pooled = conv_gn(in_channels, channels, 1, num_groups)
        self.branches = nn.ModuleList([conv_gn(in_channels, channels, 1, num_groups)])
        self.branches.extend(conv_gn(in_channels, channels, 3, num_groups, dilation=d) for d in dilations)
        self.out_channels = channels * (1 + len(self.branches))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.pooled(x.mean(dim=(2, 3), keepdim=True)), torch.cat([branch(x) for branch in self.branches], dim=1)


class NonLocal(nn.Module):
    """Every position attends to all positions of the 2x2 max-pooled map; added to the input after GroupNorm."""

    def __init__(self, channels: int, num_groups: int):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.norm = nn.GroupNorm(num_groups, channels)
        for conv in (self.query, self.key, self.value, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 2)
        query = self.query(x).flatten(2).transpose(1, 2)  # [R, H W, C]
        key, value = (conv(pooled).flatten(2).transpose(1, 2) for conv in (self.key, self.value))  # [R, H W / 4, C]
        attended = F.scaled_dot_product_attention(query, key, value)  # scaled by 1 / sqrt(C)
        attended = attended.transpose(1, 2).unflatten(2, x.shape[-2:])
        return self.norm(self.out(attended)).add_(x)


class ParsingHead(nn.Module):
    """RoI features to a parsing feature and a parsing map.

    in_channels: width of the pyramid; channels: of the branch; num_classes: K, background included; aspp_channels,
    aspp_dilations: of the ASPP; num_convs: 3x3 convolutions after the non-local block; output_size: of the map.
    """

    def __init__(
        self,
        in_channels: int = 256,
        channels: int = 512,
        num_classes: int = 20,
        aspp_channels: int = 256,
        aspp_dilations=(6, 12, 18),
        num_convs: int = 4,
        output_size: int = 128,
        num_groups: int = 32,
    ):
        super().__init__()
        self.output_size = output_size
        self.aspp = ASPP(in_channels, aspp_channels, aspp_dilations, num_groups)
        self.reduce = conv_gn(self.aspp.out_channels, channels, 1, num_groups)
        self.non_local = NonLocal(channels, num_groups)
        self.convs = nn.Sequential(*(conv_gn(channels, channels, 3, num_groups) for _ in range(num_convs)))
        self.logits = nn.ConvTranspose2d(channels, num_classes, 4, stride=2, padding=1)
        nn.init.kaiming_normal_(self.logits.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """RoI features [R, C, h, w] to the parsing feature [R, channels, h, w] and logits [R, K, output, output].

        The transposed convolution doubles the resolution; bilinear interpolation does the rest.
        """
        feature = self.convs(self.non_local(self.reduced(*self.aspp(x))))
        logits = self.logits(feature)
        size = (self.output_size, self.output_size)
        return feature, F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def reduced(self, pooled: Tensor, branches: Tensor) -> Tensor:
        """`reduce` over the channels of both, the mean's first: what is the same everywhere is convolved once."""
        conv, norm_relu = self.reduce
        everywhere, local = conv.weight.split([pooled.shape[1], branches.shape[1]], dim=1)
        return norm_relu(F.conv2d(branches, local).add_(F.conv2d(pooled, everywhere)))


def crop_parsing(person_maps: Tensor, people: Tensor, boxes: Tensor, size: int, crop: str = "exact") -> Tensor:
    """The people's own label maps inside boxes, uint8 [R, size, size], nearest pixel to each point.

    person_maps [n, H, W]; people [R] indices into it; boxes [R, 4] pixels. Point (i, j) lies at
    y1 + (i + 0.5) h / size, x1 + (j + 0.5) w / size; points outside the image take the nearest pixel of its border.
    Reads only the R size^2 pixels wanted, on the device where the maps are; the result is on the boxes' device.

    crop "rounded" is the released code's: the corners of `last_pixels` are rounded (halves to even) and cut off at 0,
    the crop ends before the last pixel, and its pixel floor(i h / size) is taken, not the one nearest to the point. A
    crop without a pixel, at which the released code stops, has one.
    """
    people, corners = people.to(person_maps.device), boxes.to(person_maps.device)
    if crop == "rounded":
        # In double and in this order, as OpenCV's nearest neighbour: h / size itself may floor to another pixel.
        first, end = last_pixels(corners).double().round().clamp(min=0).split(2, dim=1)
        scale = 1 / (size / (end - first).clamp(min=1))
        steps = torch.arange(size, device=person_maps.device, dtype=torch.float64)
        points = first[:, :, None] + (scale[:, :, None] * steps).floor()
    else:
        steps = (torch.arange(size, device=person_maps.device, dtype=corners.dtype) + 0.5) / size
        points = corners[:, :2, None] + (corners[:, 2:] - corners[:, :2])[:, :, None] * steps  # [R, 2 (x, y), size]
    columns = points[:, 0].floor().long().clamp(0, person_maps.shape[2] - 1)
    rows = points[:, 1].floor().long().clamp(0, person_maps.shape[1] - 1)
    return person_maps[people[:, None, None], rows[:, :, None], columns[:, None, :]].to(boxes.device)
