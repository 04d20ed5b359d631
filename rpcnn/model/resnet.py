"""ResNet-18, -50 and -101."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from .freeze import FreezableBackbone
from .frozen_norm import norm_layer
from .residual import BasicBlock, Bottleneck

RESNETS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(FreezableBackbone):
    """Backbone that maps images to C2..C5.

    `channels` holds the numbers of channels of C2..C5; `body` has torchvision's module names.

    Args:
        name: "resnet18", "resnet50" or "resnet101".
        norm: "frozen_bn" (the paper, for ImageNet weights), "gn" or "bn" (trainable, for random weights).
        freeze_at: number of frozen stages: 0 none, 1 the stem, 2 also the stage of C2 (the paper), … 5 all.
        width: factor on all numbers of channels.
        stride_in_1x1: put the stride of Bottleneck blocks into the first 1x1 convolution, not the 3x3 (released code).

    Raises:
        ValueError: unknown name or norm, or freeze_at outside 0..5.
    """

    def __init__(self, name: str, *, norm: str, freeze_at: int, width: float, stride_in_1x1: bool):
        super().__init__()
        if name not in RESNETS:
            raise ValueError(f"ResNet: name must be one of {', '.join(RESNETS)}, got {name!r}")
        self.name, self.width = name, width
        block, depths = RESNETS[name]
        new_norm = norm_layer(norm)
        stem = round(64 * width)
        planes = [stem, 2 * stem, 4 * stem, 8 * stem]
        self.channels = tuple(p * block.expansion for p in planes)

        self.body = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False),
                bn1=new_norm(stem),
                relu=nn.ReLU(inplace=True),
                maxpool=nn.MaxPool2d(3, stride=2, padding=1),
                layer1=_stage(block, stem, planes=planes[0], depth=depths[0], stride=1, new_norm=new_norm),
                layer2=_stage(block, self.channels[0], planes=planes[1], depth=depths[1], stride=2, new_norm=new_norm),
                layer3=_stage(block, self.channels[1], planes=planes[2], depth=depths[2], stride=2, new_norm=new_norm),
                layer4=_stage(block, self.channels[2], planes=planes[3], depth=depths[3], stride=2, new_norm=new_norm),
            )
        )
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Bottleneck) and stride_in_1x1:
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        self.freeze([self.body[:4], *self.body[4:]], freeze_at)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [N, 3, H, W] to C2..C5 [N, C_l, H / s, W / s], s = 4, 8, 16, 32; H and W are multiples of 32."""
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
        c2 = body.layer1(x)
        c3 = body.layer2(c2)
        c4 = body.layer3(c3)
        c5 = body.layer4(c4)
        return [c2, c3, c4, c5]


def _stage(
    block: type[BasicBlock | Bottleneck],
    in_channels: int,
    planes: int,
    depth: int,
    stride: int,
    new_norm: Callable[[int], nn.Module],
) -> nn.Sequential:
    """`depth` blocks; the first one has the stride and, if the shape changes, a projection shortcut."""
    channels = planes * block.expansion
    shortcut = None
    if stride != 1 or in_channels != channels:
        shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), new_norm(channels))
    first = block(in_channels, planes, stride, shortcut, norm_layer=new_norm)
    return nn.Sequential(first, *(block(channels, planes, 1, None, norm_layer=new_norm) for _ in range(depth - 1)))
