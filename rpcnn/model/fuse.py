"""Tricks that make a network faster, apart from the network: ``fuse(model)`` puts them into a plain one.

The model keeps its modules, parameters, state-dict keys and hooks, and computes the same function with fewer passes
over memory. Only classes of modules change.

- A frozen norm behind a convolution becomes part of the convolution's weight and bias.
- What the ASPP says about the whole RoI is the same at every position, so the convolution behind it runs over it once.
- On the CPU in float32, where no gradient is recorded, oneDNN adds the shortcut and applies ReLU while the
  convolution's result is in its cache, and a residual block writes over the map before it.
"""

import itertools
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from .frozen_norm import FrozenBatchNorm2d
from .layers import ConvReLU
from .parsing_head import ASPP, ParsingHead

BLOCKS = (BasicBlock, Bottleneck)
Module = TypeVar("Module", bound=nn.Module)


def fuse(model: Module) -> Module:
    """Puts the tricks into the model, in place, for training as for inference; returns it."""
    for child in model.children():
        fuse(child)
    in_order = type(model).forward is nn.Sequential.forward  # the children run in the order in which they are listed
    if in_order or type(model) in BLOCKS:
        for conv, norm in itertools.pairwise(model.children()):
            fold(conv, norm)
    if type(model) is ConvReLU and model.padding_mode == "zeros":
        model.__class__ = FusedConvReLU
    elif isinstance(model, ParsingHead) and type(model.aspp) is ASPP:
        model.aspp.__class__, model.reduce[0].__class__ = SplitASPP, SplitConv2d
    elif in_order and len(model) > 0 and all(map(is_folded_block, model)):
        model.__class__ = FusedStage
    return model


# --- frozen norms ---------------------------------------------------------------------------------------------------


def fold(conv: nn.Module, norm: nn.Module) -> None:
    """Lets a convolution apply the frozen norm that follows it; other pairs stay as they are."""
    if type(conv) is nn.Conv2d and conv.bias is None and type(norm) is FrozenBatchNorm2d:
        conv.__class__, norm.__class__ = FoldedConv2d, FoldedNorm
        conv.norm = (norm,)  # in a tuple: its parameters are listed where the norm is, not here


class FoldedConv2d(nn.Conv2d):
    """A convolution without bias that applies the frozen norm behind it, too."""

    def folded(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias that do both."""
        (norm,) = self.norm
        return self.weight * norm.weight[:, None, None, None], norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *self.folded())


class FoldedNorm(FrozenBatchNorm2d):
    """A frozen norm whose work the convolution before it does."""

    def forward(self, x: Tensor) -> Tensor:
        return x


# --- ReLU and shortcuts inside oneDNN's convolutions -----------------------------------------------------------------


class FusedConvReLU(ConvReLU):
    """A convolution and ReLU in one pass."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_relu(x, self, self.weight, self.bias) if onednn_takes(x, self) else super().forward(x)


class FusedStage(nn.Sequential):
    """Residual blocks with their ReLUs and shortcuts inside the convolutions; plain where a hook looks into them."""

    def forward(self, x: Tensor) -> Tensor:
        if not onednn_takes(x, self[0].conv1) or any(map(hooked, self)):
            return super().forward(x)
        own = False  # whether nobody else holds x
        for block in self:
            y = x
            *convs, last = (child for child in block.children() if isinstance(child, FoldedConv2d))
            for conv in convs:
                y = conv_relu(y, conv, *conv.folded())
            if block.downsample is not None:
                x, own = block.downsample(x), True
            x = conv_relu(y, last, *last.folded(), x, overwrite=own)
            own = True
        return x


def is_folded_block(module: nn.Module) -> bool:
    """Whether it is a residual block of torchvision's with ReLU, whose convolutions all apply their norms."""
    if type(module) not in BLOCKS or type(module.relu) is not nn.ReLU:
        return False
    return not any(type(child) is nn.Conv2d for child in module.children())


def hooked(module: nn.Module) -> bool:
    """Whether anybody looks into the module as it runs."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def conv_relu(
    x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor, shortcut: Tensor | None = None, overwrite: bool = False
) -> Tensor:
    """ReLU(convolution of x [+ shortcut]) in the geometry of `conv`, zero-padded; the numbers of the ops one by one.

    With `overwrite` the result takes the shortcut's memory. Fresh memory for every block costs ResNet-50 at 800 x 1088
    5 % more time on a CPU, for the pages that the system clears.
    """
    onednn = torch.ops.mkldnn
    geometry = conv.padding, conv.stride, conv.dilation, conv.groups
    if shortcut is None:
        return onednn._convolution_pointwise(x, weight, bias, *geometry, "relu", [], None)
    after = "add", None, "relu", [], None
    if overwrite:
        return onednn._convolution_pointwise_(shortcut, x, weight, bias, *geometry, *after)
    return onednn._convolution_pointwise(x, shortcut, weight, bias, *geometry, *after)


def onednn_takes(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether `conv_relu` can stand for the ops one by one."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and x.numel() > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


# --- the parsing head's first convolution ---------------------------------------------------------------------------


class SplitASPP(ASPP):
    """Gives the features of the RoI's mean once, [R, channels, 1, 1], beside the other branches' [R, rest, h, w]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True))
        return pooled, torch.cat([branch(x) for branch in self.branches], dim=1)


class SplitConv2d(nn.Conv2d):
    """The 1x1 convolution behind a `SplitASPP`."""

    def forward(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        pooled, branches = parts
        everywhere, local = self.weight.split([pooled.shape[1], branches.shape[1]], dim=1)
        return F.conv2d(branches, local).add_(F.conv2d(pooled, everywhere))
