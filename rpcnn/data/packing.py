"""How a batch passes from a loader's process to the main process: as one block of memory.

torch would send every tensor by itself, each with an open file and a piece of shared memory. Where either runs out, the
batch gets lost on its way, and training waits for it forever. One block takes one file; where shared memory is full,
the block goes through the pipe between the processes, which needs neither.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from .sample import Target

log = logging.getLogger(__name__)
ALIGNMENT = 64  # bytes

Batch = tuple[list[Tensor], list[Target]]


class Place(NamedTuple):
    """Where a tensor lies in the block."""

    start: int
    """In bytes."""
    dtype: torch.dtype
    shape: tuple[int, ...]


class PackedBatch(NamedTuple):
    """A batch as one block of bytes."""

    block: Tensor | np.ndarray
    """uint8; a tensor in shared memory, or an array that is copied through the pipe."""
    images: list[Place]
    targets: list[dict[str, Any]]
    """The targets, with a `Place` for each tensor."""
    reason: str = ""
    """Why there was no shared memory."""


def pack(batch: Batch) -> PackedBatch | Batch:
    """Pack a batch in a loader's process; in the main process it stays as it is."""
    if get_worker_info() is None:
        return batch
    images, targets = batch
    tensors: list[Tensor] = []
    places: list[Place] = []
    end = 0

    def place(tensor: Tensor) -> Place:
        nonlocal end
        tensors.append(tensor)
        places.append(Place(end, tensor.dtype, tuple(tensor.shape)))
        end += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
        return places[-1]

    image_places = [place(image) for image in images]
    placed = [{k: place(v) if isinstance(v, Tensor) else v for k, v in target.items()} for target in targets]
    reason = ""
    try:
        storage = torch.UntypedStorage._new_shared(max(end, 1), device="cpu")
        block = torch.empty(0, dtype=torch.uint8).set_(storage)
    except (RuntimeError, OSError) as error:  # no space, or no further file
        reason = str(error).splitlines()[0]
        block = torch.empty(max(end, 1), dtype=torch.uint8)
    for tensor, where in zip(tensors, places, strict=True):
        _view(block, where).copy_(tensor)
    return PackedBatch(block.numpy() if reason else block, image_places, placed, reason)


def unpack(batch: PackedBatch | Batch) -> Batch:
    """The batch whose tensors are views of the block."""
    if not isinstance(batch, PackedBatch):
        return batch
    if batch.reason:
        warn_once(batch.reason)
    block = torch.from_numpy(batch.block) if isinstance(batch.block, np.ndarray) else batch.block
    targets = [{k: _view(block, v) if isinstance(v, Place) else v for k, v in t.items()} for t in batch.targets]
    return [_view(block, where) for where in batch.images], targets


def _view(block: Tensor, where: Place) -> Tensor:
    count = int(np.prod(where.shape, dtype=np.int64))
    size = count * torch.empty((), dtype=where.dtype).element_size()
    return block[where.start : where.start + size].view(where.dtype).view(where.shape)


warned: list[str] = []


def warn_once(reason: str) -> None:
    """Say, once in a process, that batches go through pipes."""
    if not warned:
        warned.append(reason)
        log.warning(
            "batches pass through pipes, which is slower, because there is no shared memory for them (%s). A container "
            "gets more with docker run --shm-size=2g; more open files are allowed by ulimit -n",
            reason,
        )
