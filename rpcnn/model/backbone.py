"""Backbones of Fig. 2: ResNet-18/50/101 and MobileNetV2, built from torchvision's blocks, ending in C2..C5."""

import itertools
import math
from collections import OrderedDict
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import resnet

from rpcnn.runtime.unpickle import read_state_dict

from .layers import conv_relu


class BasicBlock(resnet.BasicBlock):
    """Two 3x3 convolutions and a shortcut."""

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """Where `overwrite` is true the result may take the place of x."""
        if not isinstance(self.conv1, ScaledConv2d):
            return super().forward(x)
        return self.conv2.relu(self.conv1.relu(x), _shortcut(self, x, overwrite))


class Bottleneck(resnet.Bottleneck):
    """1x1, 3x3 and 1x1 convolutions and a shortcut."""

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """Where `overwrite` is true the result may take the place of x."""
        if not isinstance(self.conv1, ScaledConv2d):
            return super().forward(x)
        return self.conv3.relu(self.conv2.relu(self.conv1.relu(x)), _shortcut(self, x, overwrite))


def _shortcut(block: nn.Module, x: Tensor, overwrite: bool) -> Tensor:
    """What the block adds, in memory that is its own to write."""
    if block.downsample is not None:
        return block.downsample(x)
    return x if overwrite or torch.is_grad_enabled() else x.clone()


class Stage(nn.Sequential):
    """Residual blocks of one resolution."""

    def forward(self, x: Tensor) -> Tensor:
        """The maps between the blocks are nobody else's, unless a hook has seen them."""
        hooked = True
        for block in self:
            x = block(x, overwrite=not hooked)
            hooked = bool(block._forward_hooks)
        return x


RESNETS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
NAMES = (*RESNETS, "mobilenet_v2")
NORMS = ("frozen_bn", "gn", "bn")


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with constant statistics, as what it then is: one scale and one shift per channel.

    Loading a BatchNorm2d's state folds its running statistics in: weight / sqrt(var + eps), bias - mean * weight'.
    Scale and shift are Parameters that do not train, so that they count and are saved.
    """

    applied_by_conv = False  # a `ScaledConv2d` in front of it does the work

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        mean, var = (state_dict.pop(prefix + name, None) for name in ("running_mean", "running_var"))
        state_dict.pop(prefix + "num_batches_tracked", None)
        if mean is not None and var is not None:
            scale = state_dict[prefix + "weight"] * torch.rsqrt(var + self.eps)
            state_dict[prefix + "bias"] = state_dict[prefix + "bias"] - mean * scale
            state_dict[prefix + "weight"] = scale
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        if self.applied_by_conv:
            return x
        scale, shift = (p.to(x.dtype)[:, None, None] for p in (self.weight, self.bias))
        return x * scale + shift

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


class ScaledConv2d(nn.Conv2d):
    """A convolution without bias that applies the frozen normalisation behind it through its own weight and bias.

    The same function without two further passes over the map, and with the same parameter names: the norm keeps its
    scale and shift and lets the result through.
    """

    def __init__(self, conv: nn.Conv2d, norm: FrozenBatchNorm2d):
        geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        super().__init__(conv.in_channels, conv.out_channels, *geometry, bias=False, device="meta")
        self.weight = conv.weight
        self.norm = (norm,)  # in a tuple: its parameters are listed where the norm is, not here
        norm.applied_by_conv = True

    def scaled(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias with which the convolution does both."""
        (norm,) = self.norm
        return self.weight * norm.weight[:, None, None, None], norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *self.scaled())

    def relu(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """ReLU(self(x) [+ onto])."""
        return conv_relu(x, self, *self.scaled(), onto)


def apply_norms_in_convs(body: nn.Module) -> None:
    """Turns every convolution of the body that a FrozenBatchNorm2d directly follows into a `ScaledConv2d`."""
    modules = [pair for pair in body.named_modules() if isinstance(pair[1], nn.Conv2d | FrozenBatchNorm2d)]
    for (name, conv), (_, norm) in itertools.pairwise(modules):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
            parent, _, child = name.rpartition(".")
            setattr(body.get_submodule(parent), child, ScaledConv2d(conv, norm))


def _group_norm(channels: int) -> nn.GroupNorm:
    # Bodies have widths such as 24 and 144: the largest group count up to 32 that divides the width.
    return nn.GroupNorm(math.gcd(32, channels), channels)


def _norm_layer(norm: str):
    if norm not in NORMS:
        raise ValueError(f"Backbone: norm must be one of {', '.join(NORMS)}, got {norm!r}")
    return {"frozen_bn": FrozenBatchNorm2d, "gn": _group_norm, "bn": nn.BatchNorm2d}[norm]


def _resnet_stage(block, in_channels: int, planes: int, blocks: int, stride: int, norm_layer) -> nn.Sequential:
    channels = planes * block.expansion
    shortcut = None
    if stride != 1 or in_channels != channels:
        shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), norm_layer(channels))
    stage = Stage(block(in_channels, planes, stride, shortcut, norm_layer=norm_layer))
    for _ in range(1, blocks):
        stage.append(block(channels, planes, norm_layer=norm_layer))
    return stage


def _resnet(name: str, width: float, norm_layer, stride_in_1x1: bool) -> tuple[nn.Sequential, list[int]]:
    """The body under torchvision's own module names, and the widths of C2..C5."""
    block, depths = RESNETS[name]
    stem = round(64 * width)
    body = OrderedDict(
        conv1=nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False),
        bn1=norm_layer(stem),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels = [stem]
    for i, depth in enumerate(depths):
        stage = _resnet_stage(block, channels[-1], stem * 2**i, depth, 1 if i == 0 else 2, norm_layer)
        if stride_in_1x1 and block is Bottleneck:
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
        body[f"layer{i + 1}"] = stage
        channels.append(stem * 2**i * block.expansion)
    body = nn.Sequential(body)
    for conv in (m for m in body.modules() if isinstance(m, nn.Conv2d)):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return body, channels[1:]


class Backbone(nn.Module):
    """An image batch to its feature maps C2..C5 at strides 4, 8, 16, 32.

    name: resnet18, resnet50, resnet101 or mobilenet_v2
    weights: path of an ImageNet state dict (.pth, .pt, .safetensors) under torchvision's names, caffe's included, or
    None for random weights
    norm: "frozen_bn" (the paper's, for ImageNet weights), "gn" or "bn" (trainable, for training from scratch)
    freeze_at: 0 trains everything, 1 freezes the stem, 2 also the stage of C2 (the paper's), ... 5 everything
    width: multiplies every width; other than 1 only without weights
    stride_in_1x1: Bottleneck blocks stride in their first 1x1 convolution instead of the 3x3 (released code)

    `channels` holds the widths of C2..C5. Raises ValueError for an unknown name or norm, and for weights that do
    not fit.
    """

    def __init__(
        self,
        name: str = "resnet50",
        weights: str | None = None,
        norm: str = "frozen_bn",
        freeze_at: int = 2,
        width: float = 1.0,
        stride_in_1x1: bool = False,
    ):
        super().__init__()
        if not 0 <= freeze_at <= 5:
            raise ValueError(f"Backbone: freeze_at must be 0..5, got {freeze_at}")
        if name in RESNETS:
            self.body, channels = _resnet(name, width, _norm_layer(norm), stride_in_1x1)
            stem, stages = "maxpool", ("layer1", "layer2", "layer3", "layer4")
        elif name == "mobilenet_v2":
            # Without the last 1x1 convolution to 1280 channels: it serves the classifier.
            mobilenet = torchvision.models.mobilenet_v2(weights=None, width_mult=width, norm_layer=_norm_layer(norm))
            self.body = mobilenet.features[:18]
            stem, stages = "1", ("3", "6", "13", "17")
            channels = [self.body[int(stage)].out_channels for stage in stages]
        else:
            raise ValueError(f"Backbone: name must be one of {', '.join(NAMES)}, got {name!r}")
        apply_norms_in_convs(self.body)
        self.name = name
        self.stages = stages
        self.channels = tuple(channels)
        if weights is not None:
            if norm == "gn":
                raise ValueError("Backbone: weights come with batch statistics; norm='gn' cannot use them")
            self.body.load_state_dict(imagenet_weights(name, width, read_state_dict(weights), weights), strict=True)
        self.frozen = []
        if freeze_at > 0:
            last = (stem, *stages)[freeze_at - 1]
            for child, module in self.body.named_children():
                self.frozen.append(module)
                if child == last:
                    break
        for module in self.frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.frozen:
            module.eval()  # a frozen stage keeps its batch statistics too
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [N, 3, H, W] normalised, H and W multiples of 32; gives [C2, C3, C4, C5]."""
        features = []
        for name, module in self.body.named_children():
            x = module(x)
            if name in self.stages:
                features.append(x)
        return features


def imagenet_weights(name: str, width: float, state: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """State of the body called `name` from the state of a classifier, under the body's names.

    Matched by name where the file at `path` uses torchvision's names, else by order where it has as many tensors of
    exactly the same shapes. Raises ValueError where neither holds.
    """
    with torch.device("meta"):
        build = getattr(torchvision.models, name)
        build = partial(build, width_mult=width) if name == "mobilenet_v2" else build
        classifier = build(weights=None)
    if name in RESNETS and width != 1:
        raise ValueError(f"backbone weights: {name} has weights for width 1 only, got width {width}")
    wanted = {k: v.shape for k, v in classifier.state_dict().items() if not k.startswith(("fc.", "classifier."))}
    if name == "mobilenet_v2":
        state = {k if k.startswith(("features.", "classifier.")) else f"features.{k}": v for k, v in state.items()}
    features = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier."))}
    optional = {k for k in wanted if k.endswith("num_batches_tracked") or k.startswith("features.18.")}
    if wanted.keys() - features.keys() - optional:
        features = dict(zip(wanted, features.values(), strict=False)) if len(features) == len(wanted) else features
    missing = [k for k in wanted if k not in features and k not in optional]
    if missing:
        raise ValueError(
            f"backbone weights: {path} is no {name}: {len(features)} tensors, {len(wanted)} wanted, "
            f"{missing[0]!r} not among them"
        )
    for key, shape in wanted.items():
        if key in features and features[key].shape != shape:
            raise ValueError(
                f"backbone weights: {path} is no {name}: {key!r} must have shape {list(shape)}, "
                f"got {list(features[key].shape)}"
            )
    used = {k: v for k, v in features.items() if k in wanted and not k.startswith("features.18.")}
    # Files without the counter of batches, which nothing here reads.
    used |= {k: torch.tensor(0) for k in wanted if k.endswith("num_batches_tracked") and k not in features}
    return {k.removeprefix("features."): v for k, v in used.items() if not k.startswith("features.18.")}
