"""The backbone by its name: one of the package's own, or anybody's module.

A backbone is any module that takes a batch [N, 3, H, W], H and W multiples of 32, to the list C2..C5 of features
[N, C_l, H / s, W / s] with s = 4, 8, 16, 32, and whose `channels` are the four widths C_l.
"""

import difflib
from collections.abc import Sequence

from torch import nn

from rpcnn.runtime.imports import import_object

from .imagenet import load_imagenet
from .mobilenet import MobileNetV2
from .resnet import RESNETS, ResNet

NAMES = (*RESNETS, MobileNetV2.name)


def make_backbone(
    name: str, *, weights: str, norm: str, freeze_at: int, width: float, stride_in_1x1: bool
) -> nn.Module:
    """The backbone called `name`.

    Args:
        name: resnet18, resnet50, resnet101, mobilenet_v2, or "package.module:callable": what the callable returns
            without arguments; none of the other arguments concerns it then.
        weights: path of ImageNet weights, see `load_imagenet`; empty for random weights.
        norm, freeze_at, width, stride_in_1x1: see `ResNet`; stride_in_1x1 changes nothing where there is no Bottleneck.

    Raises:
        ValueError: unknown name; weights that do not fit, or for a callable, which loads its own; a callable that does
            not exist or that returns no module with four integers `channels`.
    """
    if ":" in name:
        if weights:
            raise ValueError(f"backbone: weights are for {', '.join(NAMES)}; {name} must load its own, got {weights!r}")
        return _checked(import_object(name, "backbone")(), name)
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"backbone: must be one of {', '.join(NAMES)} or package.module:callable, got {name!r}{hint}")
    if name == MobileNetV2.name:
        backbone = MobileNetV2(norm=norm, freeze_at=freeze_at, width=width)
    else:
        backbone = ResNet(name, norm=norm, freeze_at=freeze_at, width=width, stride_in_1x1=stride_in_1x1)
    if weights:
        load_imagenet(backbone, weights)
    return backbone


def _checked(backbone: nn.Module, name: str) -> nn.Module:
    """The backbone, if it is a module whose `channels` are four integers; else ValueError."""
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"backbone: {name} must return a torch.nn.Module, got {type(backbone).__name__}")
    channels = getattr(backbone, "channels", None)
    is_list = isinstance(channels, Sequence) and len(channels) == 4
    if not is_list or not all(isinstance(width, int) for width in channels):
        raise ValueError(f"backbone: channels of {name} must be the four widths of C2..C5, got {channels!r}")
    return backbone
