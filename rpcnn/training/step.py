"""The gradients of one batch, computed whole or in parts that need less memory."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rpcnn.data.sample import Target
from rpcnn.model import RPRCNN
from rpcnn.runtime.precision import autocast

Losses = dict[str, Tensor]


class Step:
    """Adds the gradients of a batch to the parameters.

    In parts, the gradients equal those of the whole batch up to rounding: a pass without gradients first counts the
    samples of every part, and each loss is divided by the count of the whole batch. This costs one more forward pass.
    The exception is backbone_norm "bn", whose statistics are those of a part.

    Args:
        model: the network.
        parallel: the network as it is called, itself or wrapped in DistributedDataParallel.
        parts: number of parts; divides the number of images of a batch.
        dtype: of autocast, None for float32.
        scaler: of float16; disabled for every other dtype.
        say: called with a line for the log when a batch is split because memory ran out.
    """

    def __init__(
        self,
        model: RPRCNN,
        parallel: nn.Module,
        parts: int,
        dtype: torch.dtype | None,
        scaler: torch.amp.GradScaler,
        say: Callable[[str], None],
    ):
        self.model, self.parallel, self.parts, self.dtype = model, parallel, parts, dtype
        self.scaler, self.say = scaler, say
        self.device = model.pixel_mean.device

    def __call__(self, images: list[Tensor], targets: list[Target]) -> Losses:
        """The losses of the batch, detached; the gradients are in the parameters.

        If memory runs out, one process splits the batch into twice as many parts and begins anew.

        Raises:
            torch.OutOfMemoryError: single images, or one of several processes, do not fit; the message has the remedy.
        """
        parts = self.parts
        while True:
            try:
                return self.in_parts(images, targets, parts)
            except torch.OutOfMemoryError as error:
                if isinstance(self.parallel, DistributedDataParallel):
                    # The other processes are inside a collective operation, which cannot be repeated.
                    raise torch.OutOfMemoryError(
                        f"{error}\nA process of several cannot repeat a step: continue with --resume auto and a larger "
                        "train.accumulate, or smaller data.short_side and data.long_side_max."
                    ) from None
                if parts >= len(images):
                    raise torch.OutOfMemoryError(
                        f"{error}\nA single image does not fit: use smaller data.short_side, data.long_side_max or "
                        "sampling.*, or --precision bf16."
                    ) from None
            for parameter in self.model.parameters():
                parameter.grad = None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            parts = next(n for n in range(2 * parts, len(images) + 1) if len(images) % n == 0 or n == len(images))
            self.say(f"rpcnn: out of memory; this batch of {len(images)} is repeated in {parts} parts")

    def in_parts(self, images: list[Tensor], targets: list[Target], parts: int) -> Losses:
        """As `__call__`, in this number of parts and without a second try."""
        size = -(-len(images) // parts)
        slices = [slice(start, start + size) for start in range(0, len(images), size)]
        counts = None
        if len(slices) > 1:
            with autocast(self.device, self.dtype):
                counts = sum(self.model.counts(images[part], targets[part]) for part in slices)
        total: Losses = {}
        for part in slices:
            last = part is slices[-1]
            hold = contextlib.nullcontext() if last or self.parallel is self.model else self.parallel.no_sync()
            with hold:
                with autocast(self.device, self.dtype):
                    losses = self.parallel(images[part], targets[part], counts)
                self.scaler.scale(sum(losses.values())).backward()
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value.detach()
        return total
