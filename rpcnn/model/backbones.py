"""Make a backbone by name: one of the package's own, or any custom module.

A backbone is any module that maps a batch [N, 3, H, W], H and W multiples of 32, to the list C2..C5 of feature maps
[N, C_l, H / s, W / s] with s = 4, 8, 16, 32, and whose attribute `channels` holds the four numbers C_l.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence

import torch
from torch import nn

from rpcnn.config.imports import import_object

from .imagenet import load_imagenet
from .mobilenet import MobileNetV2
from .resnet import RESNETS, ResNet

NAMES = (*RESNETS, MobileNetV2.name)


def make_backbone(
    name: str, *, weights: str, norm: str, freeze_at: int, width: float, stride_in_1x1: bool
) -> nn.Module:
    """Make the backbone called `name`.

    Args:
        name: resnet18, resnet50, resnet101, mobilenet_v2, or "package.module:callable". The callable is called without
            arguments and returns the backbone; norm, freeze_at, width and stride_in_1x1 are then ignored.
        weights: path of ImageNet weights, see `load_imagenet`; empty for random weights.
        norm, freeze_at, width, stride_in_1x1: see `ResNet`; stride_in_1x1 has no effect without Bottleneck blocks.

    Raises:
        ValueError: unknown name; weights that do not fit, or weights given with a callable, which loads its own; a
            callable that does not exist or whose result is no module with four integers `channels`.
    """
    if ":" in name:
        if weights:
            raise ValueError(f"backbone: weights are for {', '.join(NAMES)}; {name} must load its own, got {weights!r}")
        return _checked(_called(import_object(name, "model.backbone"), name), name)
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


def _called(make: Callable, name: str) -> nn.Module:
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ValueError(f"backbone: {name} must be callable without arguments: {error}") from None
    return make()


def _checked(backbone: nn.Module, name: str) -> nn.Module:
    """Return the backbone; raise ValueError unless it keeps the promises of a backbone for one small image."""
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"backbone: {name} must return a torch.nn.Module, got {type(backbone).__name__}")
    channels = getattr(backbone, "channels", None)
    is_list = isinstance(channels, Sequence) and len(channels) == 4
    if not is_list or not all(isinstance(width, int) for width in channels):
        raise ValueError(f"backbone: channels of {name} must be four integers, those of C2..C5, got {channels!r}")
    training = backbone.training
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(1, 3, 64, 96))
    backbone.train(training)
    wanted = [[1, c, 64 // stride, 96 // stride] for c, stride in zip(channels, (4, 8, 16, 32), strict=True)]
    shapes = [list(m.shape) for m in maps] if isinstance(maps, Sequence) else type(maps).__name__
    if shapes != wanted:
        raise ValueError(
            f"backbone: {name} must return C2..C5, of an image [1, 3, 64, 96] maps of {wanted}, got {shapes}"
        )
    return backbone
