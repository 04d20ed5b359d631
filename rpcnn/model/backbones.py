"""The package's own backbones by their names.

A backbone is any module that takes a batch [N, 3, H, W], H and W multiples of 32, to the list C2..C5 of features
[N, C_l, H / s, W / s] with s = 4, 8, 16, 32, and whose `channels` are the four widths C_l.
"""

import difflib

from torch import nn

from .imagenet import load_imagenet
from .mobilenet import MobileNetV2
from .resnet import RESNETS, ResNet

NAMES = (*RESNETS, MobileNetV2.name)


def make_backbone(
    name: str, *, weights: str, norm: str, freeze_at: int, width: float, stride_in_1x1: bool
) -> nn.Module:
    """The backbone called `name`.

    Args:
        name: resnet18, resnet50, resnet101 or mobilenet_v2.
        weights: path of ImageNet weights, see `load_imagenet`; empty for random weights.
        norm, freeze_at, width, stride_in_1x1: see `ResNet`; stride_in_1x1 changes nothing where there is no Bottleneck.

    Raises:
        ValueError: unknown name, or weights that do not fit.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"backbone: must be one of {', '.join(NAMES)}, got {name!r}{hint}")
    if name == MobileNetV2.name:
        backbone = MobileNetV2(norm=norm, freeze_at=freeze_at, width=width)
    else:
        backbone = ResNet(name, norm=norm, freeze_at=freeze_at, width=width, stride_in_1x1=stride_in_1x1)
    if weights:
        load_imagenet(backbone, weights)
    return backbone
