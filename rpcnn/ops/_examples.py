"""One example call of each op, used by rpcnn.selfcheck and by the tests that run every op."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Device = str | torch.device
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]
"""The spatial scales of P2..P6: feature-map cells per image pixel."""


@dataclass
class Example:
    """One call of an op with realistic arguments, on the CPU, with feature maps in float32."""

    function: Callable[..., object]
    """The op. Takes `arguments` by keyword and returns one or several tensors."""
    reference: Callable[..., object]
    """The op's reference in plain PyTorch, with the same arguments and results."""
    arguments: Mapping[str, object]
    """Keyword arguments, all but the op's flags."""
    maps: tuple[str, ...] = ()
    """Names of the arguments (tensors or lists of tensors) that may have any floating dtype and memory layout."""
    differentiable: bool = True
    """Whether the op has gradients with respect to all maps."""
    exact: bool = False
    """Whether the results are integers that must equal the reference's. One value in a thousand may differ, since
    two sums of different order may round differently."""
    fixed_size: bool = True
    """Whether the shapes of the results depend on the shapes of the arguments only, as CUDA graphs need."""

    def on(
        self, device: Device, dtype: torch.dtype = torch.float32, layout: torch.memory_format = torch.contiguous_format
    ) -> dict[str, object]:
        """Copy the arguments to a device, with the maps in the given dtype and memory layout."""

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
        """List the tensors among the arguments from :meth:`on` that are maps."""
        return tree_leaves([arguments[name] for name in self.maps])

    def run(
        self,
        function: Callable,
        device: Device,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> list[Tensor]:
        """Call the op or its reference.

        Returns:
            Its results, and after them the gradients of the sum of their squares with respect to every map, if the op
            is differentiable.
        """
        arguments = self.on(device, dtype, layout)
        maps = [m.requires_grad_(self.differentiable) for m in self.map_tensors(arguments)]
        out = tree_leaves(function(**arguments))
        if self.differentiable:
            out += torch.autograd.grad(sum((t.float() ** 2).sum() for t in out), maps)
        return [t.detach() for t in out]


def image_size(small: bool) -> tuple[int, int]:
    """Return the height and width of the paper's network input (800×1216), or a quarter of each if `small`."""
    return (200, 304) if small else (800, 1216)


def pyramid(small: bool) -> list[Tensor]:
    """Make random levels P2..P6, [1, C, H_l, W_l], of an image of :func:`image_size`; C is 256, or 32 if `small`."""
    generator, (height, width) = torch.Generator().manual_seed(0), image_size(small)
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32, 64)]
    return [torch.randn(1, 32 if small else 256, *size, generator=generator) for size in sizes]


def people(small: bool) -> Tensor:
    """Make random boxes [R, 4] in an image of :func:`image_size`; R is 512, or 64 if `small`."""
    generator, (height, width) = torch.Generator().manual_seed(1), image_size(small)
    draw = lambda: torch.rand(64 if small else 512, 2, generator=generator)
    corner = draw() * torch.tensor([0.7 * width, 0.7 * height])
    size = (0.05 + 0.4 * draw()) * torch.tensor([width, height])
    return torch.cat([corner, corner + size], 1)


def parsing_logits(small: bool) -> Tensor:
    """Make random parsing logits [R, 20, h, w]: 16 people at 128×128 pixels, or 4 at 32×32 if `small`."""
    size = (4, 20, 32, 32) if small else (16, 20, 128, 128)
    return torch.randn(*size, generator=torch.Generator().manual_seed(2))
