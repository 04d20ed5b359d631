"""The network as a graph of torch.export, with dynamic batch size, height and width; torch's file format."""

import pathlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from .network import InferenceNetwork

SMALLEST, LARGEST = 65, 8192
"""Limits of height and width in pixels. Below, the coarsest level has one row or column, which is another graph."""
MOST_IMAGES = 256
Run = Callable[[Tensor], Sequence[Tensor]]
"""Takes images float32 [N, 3, H, W] and returns what `InferenceNetwork` does."""


def export_program(network: InferenceNetwork, dynamic: bool = True) -> ExportedProgram:
    """Trace the network.

    Args:
        network: on the CPU.
        dynamic: any batch size, height and width; False fixes one image of 160 x 224 pixels, for tests of the rest.
    """
    example = torch.zeros(2 if dynamic else 1, 3, 160, 224)
    shapes = None
    if dynamic:
        side = {"min": SMALLEST, "max": LARGEST}
        shapes = ({0: Dim("batch", min=1, max=MOST_IMAGES), 2: Dim("height", **side), 3: Dim("width", **side)},)
    with torch.no_grad():
        return torch.export.export(
            network,
            (example,),
            dynamic_shapes=shapes,
            strict=False,
            # Sizes are rounded up to multiples of 32, about which guards cannot be proved.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def save_torch(program: ExportedProgram, path: pathlib.Path, settings: dict[str, str]) -> None:
    """Write the graph with `torch.export.save`; load it after `import rpcnn.ops`, which has its operators."""
    torch.export.save(program, path, extra_files=settings)


def open_torch(path: pathlib.Path) -> tuple[Run, dict[str, str]]:
    """Read what `save_torch` wrote: the network, and the settings."""
    settings = {"config": "", "labels": ""}
    return torch.export.load(path, extra_files=settings).module(), settings
