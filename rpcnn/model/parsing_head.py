"""Parsing branch (Fig. 2): geometric and context encoding (GCE) of each person's RoI, and the parsing map."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpcnn import ops
from rpcnn.box_convention import EDGES, BoxConvention
from rpcnn.labels import IGNORE

from .boxes import draw_samples
from .layers import GroupNorm, conv_gn, spatial_mean
from .parsing_targets import crop_parsing


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: global average pooling, a 1x1 and dilated 3x3 convolutions in parallel branches.

    Maps [R, in_channels, h, w] to [R, out_channels, h, w]. The branches are concatenated, `channels` each; the first
    is the pooled one, constant over all positions.
    """

    def __init__(self, in_channels: int, channels: int, dilations, num_groups: int):
        super().__init__()
        self.pooled = conv_gn(in_channels, channels, kernel=1, num_groups=num_groups)
        self.branches = nn.ModuleList([conv_gn(in_channels, channels, kernel=1, num_groups=num_groups)])
        self.branches.extend(
            conv_gn(in_channels, channels, kernel=3, num_groups=num_groups, dilation=d) for d in dilations
        )
        self.out_channels = channels * (1 + len(self.branches))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(spatial_mean(x)[:, :, None, None]).expand(-1, -1, *x.shape[2:])
        return torch.cat([pooled, *(branch(x) for branch in self.branches)], dim=1)


class NonLocal(nn.Module):
    """Non-local block: each position attends to all positions of the 2x2 max-pooled map. Residual, after GroupNorm."""

    def __init__(self, channels: int, num_groups: int):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.norm = GroupNorm(num_groups, channels)
        for conv in (self.query, self.key, self.value, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 2)
        # [R, 1 head, H W or H W / 4, C]: fused kernels take 4 dimensions; PyTorch's memory-efficient one takes C = 512.
        rows = lambda maps: maps.flatten(2).transpose(1, 2)[:, None]
        query, key, value = rows(self.query(x)), rows(self.key(pooled)), rows(self.value(pooled))
        attended = F.scaled_dot_product_attention(query, key, value)  # scaled by 1 / sqrt(C)
        attended = attended[:, 0].transpose(1, 2).unflatten(2, x.shape[-2:])
        return self.norm(self.out(attended), residual=x)


class ParsingHead(nn.Module):
    """Predicts a parsing feature and parsing logits from RoI features of the finest level.

    Args:
        in_channels: of the feature maps.
        channels: of the branch.
        num_classes: K, background included.
        resolution: cells per side of the RoI features.
        output_size: side of the parsing map.
        samples: people per image in training.
        num_groups: of each GroupNorm.
        aspp_channels: of each branch of the ASPP.
        num_convs: number of 3x3 convolutions after the non-local block.
        aspp_dilations: of the 3x3 convolutions of the ASPP.
        stride: of the finest level, in pixels.
        aligned: RoIAlign with the half-pixel shift.
        boxes: convention of box coordinates.
        crop: computes the training targets, see `crop_parsing`.

    Raises:
        ValueError: output_size is no multiple of resolution.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        *,
        resolution: int,
        output_size: int,
        samples: int,
        num_groups: int,
        aspp_channels: int = 256,
        num_convs: int = 4,
        aspp_dilations: Sequence[int] = (6, 12, 18),
        stride: int = 4,
        aligned: bool = True,
        boxes: BoxConvention = EDGES,
        crop: Callable[[Tensor, Tensor, Tensor, int], Tensor] = crop_parsing,
    ):
        super().__init__()
        if output_size % resolution:
            raise ValueError(
                f"ParsingHead: output_size must be a multiple of resolution, got {output_size} and {resolution}"
            )
        self.num_classes, self.resolution, self.output_size, self.samples = (
            num_classes,
            resolution,
            output_size,
            samples,
        )
        self.scale, self.aligned, self.boxes = 1 / stride, aligned, boxes
        self.crop = crop
        self.aspp = ASPP(in_channels, channels=aspp_channels, dilations=aspp_dilations, num_groups=num_groups)
        self.reduce = conv_gn(self.aspp.out_channels, channels, kernel=1, num_groups=num_groups)
        self.non_local = NonLocal(channels, num_groups)
        self.convs = nn.Sequential(
            *(conv_gn(channels, channels, kernel=3, num_groups=num_groups) for _ in range(num_convs))
        )
        self.logits = nn.ConvTranspose2d(channels, num_classes, 4, stride=2, padding=1)
        nn.init.kaiming_normal_(self.logits.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """RoI features [R, C, h, w] to the parsing feature [R, channels, h, w] and logits [R, K, output, output].

        A transposed convolution doubles the resolution; bilinear interpolation gives the output size.
        """
        feature = self.convs(self.non_local(self.reduce(self.aspp(x))))
        logits = self.logits(feature)
        size = (self.output_size, self.output_size)
        return feature, F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def roi_features(self, feature: Tensor, boxes: list[Tensor]) -> Tensor:
        """Features [R, C, resolution, resolution] of the boxes of each image, from the finest level (Sec. 3.3)."""
        return self.pool(feature, [self.boxes.to_roi(b) for b in boxes])

    def pool(self, feature: Tensor, rois: Tensor | list[Tensor]) -> Tensor:
        """RoI features of rois in the coordinates and forms that RoIAlign takes."""
        return ops.roi_align(
            feature, rois, output_size=self.resolution, spatial_scale=self.scale, sampling_ratio=2, aligned=self.aligned
        )

    @torch.no_grad()
    def sample(self, rois, image_sizes, targets, generators) -> tuple[list[Tensor], Tensor]:
        """Draw the RoIs of each image for training: boxes [R_i, 4] per image, labels uint8 [R, output, output].

        RoIs are drawn before the labels are cropped: only 16 of up to 128 positives are needed. A batch without any
        person gets one RoI with all labels ignored, so that every parameter has a (zero) gradient in every step.
        """
        boxes, labels = [], []
        for roi, target, generator in zip(rois, targets, generators, strict=True):
            chosen, people = draw_samples(roi.people, self.samples, 1.0, generator, negatives=False)
            if len(target["boxes"]) == 0:
                chosen, people = chosen[:0], people[:0]
            boxes.append(roi.boxes[chosen])
            if len(chosen):
                crops = self.crop(target["person_maps"], people.clamp(min=0), boxes[-1], self.output_size)
                labels.append(torch.where((people >= 0)[:, None, None], crops, IGNORE))
        if not labels:
            height, width = image_sizes[0]
            boxes[0] = boxes[0].new_zeros(1, 4)
            boxes[0][:, 2], boxes[0][:, 3] = width, height
            size = (1, self.output_size, self.output_size)
            labels.append(torch.full(size, IGNORE, dtype=torch.uint8, device=boxes[0].device))
        return boxes, torch.cat(labels)
