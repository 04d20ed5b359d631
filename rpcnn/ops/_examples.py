"""A call of each op that shows what it does, for whatever tries them all: rpcnn.selfcheck and the tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Device = str | torch.device
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]
"""Pixels of P2..P6 per pixel of the image."""


@dataclass
class Example:
    """A call of an op with arguments that exercise it, on the CPU, maps in float32."""

    function: Callable[..., object]
    """The op: `arguments` by name to a tensor or several."""
    reference: Callable[..., object]
    """The same in plain PyTorch."""
    arguments: Mapping[str, object]
    """Every argument that is no flag."""
    maps: tuple[str, ...] = ()
    """The arguments that may have any floating dtype and memory layout: a tensor or a list of tensors each."""
    differentiable: bool = True
    """Whether there are gradients with respect to all maps."""
    exact: bool = False
    """Whether the results are integers that must be equal, up to one in a thousand where two sums may round apart."""
    fixed_size: bool = True
    """Whether the arguments' shapes give the results' shapes, so that a CUDA graph can capture the call."""

    def on(
        self, device: Device, dtype: torch.dtype = torch.float32, layout: torch.memory_format = torch.contiguous_format
    ) -> dict[str, object]:
        """The arguments on a device, the maps in a dtype and layout; every tensor is a new one."""

        def moved(name, value):
            if isinstance(value, list):
                return [moved(name, item) for item in value]
            if not isinstance(value, Tensor):
                return value
            if name in self.maps:
                value = value.to(dtype)
                value = value.contiguous(memory_format=layout) if value.dim() == 4 else value
            return value.to(device).detach()

        return {name: moved(name, value) for name, value in self.arguments.items()}

    def map_tensors(self, arguments: dict[str, object]) -> list[Tensor]:
        """The maps among arguments that :meth:`on` gave, one by one."""
        return tree_leaves([arguments[name] for name in self.maps])

    def run(
        self,
        function: Callable,
        device: Device,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> list[Tensor]:
        """What the function (ours or the reference) returns, then the gradients of the sum of its squares."""
        arguments = self.on(device, dtype, layout)
        maps = [m.requires_grad_(self.differentiable) for m in self.map_tensors(arguments)]
        out = tree_leaves(function(**arguments))
        if self.differentiable:
            out += torch.autograd.grad(sum((t.float() ** 2).sum() for t in out), maps)
        return [t.detach() for t in out]


def image_size(small: bool) -> tuple[int, int]:
    """Height and width: an image as the paper's network sees it, or a quarter of its height and width."""
    return (200, 304) if small else (800, 1216)


def pyramid(small: bool) -> list[Tensor]:
    """P2..P6 [1, C, H_l, W_l] of such an image: 256 channels, or 32."""
    generator, (height, width) = torch.Generator().manual_seed(0), image_size(small)
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32, 64)]
    return [torch.randn(1, 32 if small else 256, *size, generator=generator) for size in sizes]


def people(small: bool) -> Tensor:
    """Boxes [R, 4] in such an image: 512, or 64."""
    generator, (height, width) = torch.Generator().manual_seed(1), image_size(small)
    draw = lambda: torch.rand(64 if small else 512, 2, generator=generator)
    corner = draw() * torch.tensor([0.7 * width, 0.7 * height])
    size = (0.05 + 0.4 * draw()) * torch.tensor([width, height])
    return torch.cat([corner, corner + size], 1)


def parsing_logits(small: bool) -> Tensor:
    """Logits [R, 20, h, w] of people: 16 of 128×128 pixels, or 4 of 32×32."""
    size = (4, 20, 32, 32) if small else (16, 20, 128, 128)
    return torch.randn(*size, generator=torch.Generator().manual_seed(2))
