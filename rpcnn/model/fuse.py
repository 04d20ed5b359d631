"""Layer fusion, kept apart from the network's definition: ``fuse(model)`` replaces layers by faster equivalents.

The model keeps its modules, parameters, state-dict keys and hooks, and computes the same function with fewer passes
over memory. Only the classes of modules change.

- A frozen norm after a convolution is folded into the weight and bias of the convolution.
- The pooled branch of the ASPP is constant over all positions, so the next convolution is applied to it once.
- On the CPU in half precision, strided depthwise convolutions compute their gradients in float32.
- On the CPU in float32 without gradients, oneDNN adds the shortcut and applies ReLU inside the convolution, and a
  residual block overwrites the feature map before it.
"""

import itertools
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpcnn.runtime.precision import autocast_enabled

from .frozen_norm import FrozenBatchNorm2d
from .layers import ConvReLU, spatial_mean
from .parsing_head import ASPP, ParsingHead
from .residual import BasicBlock, Bottleneck

BLOCKS = (BasicBlock, Bottleneck)
Module = TypeVar("Module", bound=nn.Module)


def fuse(model: Module) -> Module:
    """Replace layers of the model by fused ones, in place, for training and inference; returns the model."""
    for child in model.children():
        fuse(child)
    in_order = type(model).forward is nn.Sequential.forward  # its children run one after another
    if in_order or type(model) in BLOCKS:
        for conv, norm in itertools.pairwise(model.children()):
            fold(conv, norm)
    if type(model) is nn.Conv2d and 1 < model.groups == model.in_channels and max(model.stride) > 1:
        model.__class__ = StridedDepthwise
    elif type(model) is ConvReLU and model.padding_mode == "zeros":
        model.__class__ = FusedConvReLU
    elif isinstance(model, ParsingHead) and type(model.aspp) is ASPP:
        model.aspp.__class__, model.reduce[0].__class__ = SplitASPP, SplitConv2d
    elif in_order and len(model) > 0 and all(map(is_folded_block, model)):
        model.__class__ = FusedStage
    return model


# --- strided depthwise convolutions -----------------------------------------------------------------------------------


class StridedDepthwise(nn.Conv2d):
    """A convolution of each channel with a stride.

    oneDNN has no fast code for the gradient of its input in bfloat16 and float16: [4, 96, 160, 208] to [4, 96, 80, 104]
    takes 510 ms on one core of a Xeon with AMX, in float32 27 ms. With MobileNetV2 that was half of a training step.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = cast_to(self.weight)
        slow = x.device.type == "cpu" and dtype in (torch.bfloat16, torch.float16) and needs_gradient(x)
        if not slow or torch.compiler.is_compiling():
            return super()._conv_forward(x, weight, bias)
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.float()
            return super()._conv_forward(x.float(), weight.float(), bias).to(dtype)


# --- frozen norms ---------------------------------------------------------------------------------------------------


def fold(conv: nn.Module, norm: nn.Module) -> None:
    """Fold a frozen norm into the convolution before it, if the two modules are such a pair."""
    if type(conv) in FOLDED and conv.bias is None and type(norm) is FrozenBatchNorm2d:
        conv.__class__, norm.__class__ = FOLDED[type(conv)], FoldedNorm
        conv.norm = (norm,)  # a tuple is not registered: the parameters keep their keys at the norm
        conv.kept = Kept(), Kept()  # of the weight and of the bias


class FoldedConv2d(nn.Conv2d):
    """A convolution without bias that also applies the frozen norm after it."""

    def folded(self) -> tuple[Tensor, Tensor]:
        """The weight and bias of convolution and norm together, in the dtype of autocast where it is on.

        What needs no gradient, such as the weights of frozen stages, is computed once and kept until it changes.
        """
        (norm,) = self.norm
        scale, bias = norm.weight[:, None, None, None], norm.bias
        if torch.compiler.is_compiling():
            return self.weight * scale, bias
        dtype = cast_to(self.weight)
        kept_weight, kept_bias = self.kept
        if needs_gradient(norm.weight, bias):
            return self.weight * scale, bias
        bias = kept_bias(lambda: bias.to(dtype), [bias], dtype)
        if needs_gradient(self.weight):
            return scaled(self.weight, scale, dtype), bias
        return kept_weight(lambda: scaled(self.weight, scale, dtype), [self.weight, norm.weight], dtype), bias

    def train(self, mode: bool = True):
        """Set the mode, and forget what was kept: a caller may have written to the weights by `.data`."""
        for kept in self.kept:
            kept.state = kept.result = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *self.folded())


class FoldedStridedDepthwise(FoldedConv2d, StridedDepthwise):
    """Both."""


FOLDED = {nn.Conv2d: FoldedConv2d, StridedDepthwise: FoldedStridedDepthwise}


class FoldedNorm(FrozenBatchNorm2d):
    """A frozen norm that is folded into the convolution before it; the identity."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Kept:
    """The last result of a function of tensors, computed again when one of them has changed.

    In-place ops, which optimizers and load_state_dict use, give a tensor a new version; Module.to and `p.data = q` give
    it another storage. Writes to `.data` in place leave no trace.
    """

    state, result = None, None

    def __call__(self, compute: Callable[[], Tensor], tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
        if not all(isinstance(t, nn.Parameter) and not t.is_inference() for t in tensors):
            return compute()  # such tensors have no version, or no storage of their own under torch.func
        state = dtype, *((t.untyped_storage()._cdata, t._version) for t in tensors)
        if state != self.state:
            with torch.inference_mode(False), torch.no_grad():  # a later training step may use the result
                self.state, self.result = state, compute()
        return self.result

    def __getstate__(self):
        return None  # copies and files do without the result


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether a result of these tensors takes part in the backward pass."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def cast_to(weight: Tensor) -> torch.dtype:
    """The dtype to which autocast converts a weight, if it is on; else that of the weight."""
    if weight.dtype == torch.float64 or not autocast_enabled(weight.device):
        return weight.dtype
    return torch.get_autocast_dtype(weight.device.type)


def scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """weight * scale, converted to dtype in the same pass."""
    return weight * scale if dtype == weight.dtype else ScaledWeight.apply(weight, scale, dtype)


class ScaledWeight(torch.autograd.Function):
    """The product of a weight and a scale without gradient, in a lower precision: one launch, and one backward."""

    @staticmethod
    def forward(ctx, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(scale)
        return torch.mul(weight, scale, out=torch.empty_like(weight, dtype=dtype))

    @staticmethod
    def backward(ctx, grad: Tensor):
        (scale,) = ctx.saved_tensors
        return grad * scale, None, None  # in the dtype of the scale


# --- ReLU and shortcuts inside oneDNN's convolutions -----------------------------------------------------------------


class FusedConvReLU(ConvReLU):
    """A convolution and ReLU in one pass."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_relu(x, self, weight=self.weight, bias=self.bias) if onednn_takes(x, self) else super().forward(x)


class FusedStage(nn.Sequential):
    """Residual blocks with ReLU and shortcut fused into the convolutions; not fused while a block has hooks."""

    def forward(self, x: Tensor) -> Tensor:
        if not onednn_takes(x, self[0].conv1) or any(map(hooked, self)):
            return super().forward(x)
        own = False  # whether x is used only here and may be overwritten
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
    """Whether the module is a residual block with ReLU, all of whose norms are folded."""
    if type(module) not in BLOCKS or type(module.relu) is not nn.ReLU:
        return False
    return not any(type(child) is nn.Conv2d for child in module.children())


def hooked(module: nn.Module) -> bool:
    """Whether the module or one of its submodules has forward hooks."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def conv_relu(
    x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor, shortcut: Tensor | None = None, overwrite: bool = False
) -> Tensor:
    """ReLU(convolution of x [+ shortcut]) in one oneDNN call; the same numbers as the separate ops.

    Args:
        x: [N, C, H, W].
        conv: gives padding (with zeros), stride, dilation and groups.
        weight, bias: of the convolution, norm included.
        shortcut: added before ReLU.
        overwrite: write the result into the shortcut's memory. New memory for every block costs ResNet-50 at
            800 x 1088 5 % more time on a CPU, because the system clears the pages.
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
    """Whether `conv_relu` supports this input and convolution."""
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
    """Returns the pooled branch [R, channels, 1, 1] apart from the other branches [R, rest, h, w]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.pooled(spatial_mean(x)[:, :, None, None])
        return pooled, torch.cat([branch(x) for branch in self.branches], dim=1)


class SplitConv2d(nn.Conv2d):
    """The 1x1 convolution after a `SplitASPP`."""

    def forward(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        pooled, branches = parts
        everywhere, local = self.weight.split([pooled.shape[1], branches.shape[1]], dim=1)
        return F.conv2d(branches, local).add_(F.conv2d(pooled, everywhere))
