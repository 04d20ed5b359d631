"""Steps whose gradients are not finite: found and skipped on the device, named as soon as the host knows."""

from typing import NamedTuple

import torch
from torch import Tensor

from rpcnn.runtime.distributed import gather_objects

MOST_IMAGES = 8  # named in a line


class Fault(NamedTuple):
    """A step that was skipped."""

    iteration: int
    row: int
    """How many steps in a row were skipped, this one included."""
    text: str
    """A line for the log: which losses are not finite, and the images of the step."""


class _Seen(NamedTuple):
    iteration: int
    numbers: Tensor
    copied: torch.cuda.Event | None
    names: list[str]
    images: list[str]


class FaultFinder:
    """Looks at the gradient norm and the losses of every step, without waiting for the device.

    The numbers are copied to the host asynchronously and looked at `lag` steps later; by then they have long arrived.
    All processes see a fault at the same iteration, because a gradient summed over them has one norm.

    Args:
        device: of the numbers.
    """

    def __init__(self, device: torch.device):
        self.lag = 2 if device.type == "cuda" else 0
        self.waiting: list[_Seen] = []
        self.row = 0
        """Steps that were skipped in a row up to the last one looked at."""

    def add(self, iteration: int, bad: Tensor, losses: dict[str, Tensor], images: list[str]) -> None:
        """Note a step.

        Args:
            bad: bool scalar, whether the step is skipped; the same in all processes.
            losses: of this process.
            images: ids of the images of this process.
        """
        values = torch.stack([bad.float(), *(value.detach().float() for value in losses.values())])
        copied = None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self.waiting.append(_Seen(iteration, values, copied, list(losses), images))

    def found(self, iteration: int) -> list[Fault]:
        """The faults of the steps up to `iteration` - lag that were not looked at before."""
        faults = []
        while self.waiting and self.waiting[0].iteration <= iteration - self.lag:
            seen = self.waiting.pop(0)
            if seen.copied:
                seen.copied.synchronize()
            bad, *values = seen.numbers.tolist()
            self.row = self.row + 1 if bad else 0
            if bad:
                names = [name for name, value in zip(seen.names, values, strict=True) if not abs(value) < float("inf")]
                faults.append(Fault(seen.iteration, self.row, self._describe(seen, names)))
        return faults

    def forget(self) -> None:
        """Forget the steps that were not looked at, when training goes back to a snapshot."""
        self.waiting.clear()
        self.row = 0

    def _describe(self, seen: _Seen, names: list[str]) -> str:
        everywhere = gather_objects((names, seen.images))
        causes = [(names, images) for names, images in everywhere if names] or everywhere
        broken = sorted({name for names, _ in causes for name in names})
        images = [image for _, images in causes for image in images]
        more = f" and {len(images) - MOST_IMAGES} more" if len(images) > MOST_IMAGES else ""
        what = f"loss {', '.join(broken)}" if broken else "the gradient"
        return (
            f"rpcnn: iteration {seen.iteration} skipped: {what} is not finite; "
            f"images {', '.join(images[:MOST_IMAGES])}{more}"
        )


def skip_if(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """Make the next step of a fused optimizer leave everything as it is where `bad`, a bool scalar, is true.

    It is the way by which torch's GradScaler skips steps; the kernels of the optimizer read the flag on the device.
    """
    optimizer.found_inf = bad.float()
    optimizer.grad_scale = None


def fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Begin SGD's momentum with zeros, which gives the same first step as none at all.

    A fused SGD that skips its first step would keep memory that nobody has written (torch 2.11 to 2.14).
    """
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
