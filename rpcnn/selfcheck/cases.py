"""What is timed: every op at the paper's sizes, forward and with its gradient, in float32 and bfloat16."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rpcnn.ops._examples import Example

from .clock import EventClock, HostClock, as_graph
from .measure import Call, measure
from .report import Row

MOST_SETS = 64


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    op: str
    backward: bool
    dtype: torch.dtype

    def __str__(self):
        return f"{self.op} {self.direction} {str(self.dtype).removeprefix('torch.')}"

    @property
    def direction(self) -> str:
        """What is run."""
        return "forward + backward" if self.backward else "forward"


def cases(ops: Mapping[str, Callable[[bool], Example]], halves: bool, only: str = "") -> list[Case]:
    """List the cases whose text holds `only`; those in bfloat16 if `halves` and the op has maps."""
    listed = []
    for op, make in ops.items():
        example = make(small=True)
        for dtype in (torch.float32, torch.bfloat16) if halves and example.maps else (torch.float32,):
            listed += [Case(op, backward, dtype) for backward in (False, True)[: 1 + example.differentiable]]
    return [case for case in listed if only in str(case)]


def sets_needed(size: int, cache: int) -> int | None:
    """How many sets of inputs of `size` bytes in turn leave none of them in a cache; None if too many are needed."""
    sets = max(2, -(-2 * cache // max(size, 1)) + 1)
    return sets if sets <= MOST_SETS else None


def prepared(case: Case, example: Example, device: torch.device) -> tuple[Call, int, int]:
    """Make a call on a set of inputs of its own.

    Returns:
        The call, the bytes of its inputs, and the bytes that it must move: inputs, results and gradients, each once.
    """
    arguments = example.on(device, case.dtype, torch.channels_last)
    size = lambda value: sum(t.nbytes for t in tree_leaves(value) if isinstance(t, Tensor))
    inputs = size(arguments)
    with torch.no_grad():
        out = tree_leaves(example.function(**arguments))
    if not case.backward:

        def call():
            with torch.no_grad():
                example.function(**arguments)

        return call, inputs, inputs + size(out)
    maps = [m.requires_grad_() for m in example.map_tensors(arguments)]
    differentiable = lambda: [t for t in tree_leaves(example.function(**arguments)) if t.requires_grad]
    grads = [torch.ones_like(t) for t in differentiable()]

    def step():
        torch.autograd.grad(differentiable(), maps, grads)

    return step, inputs + size(grads), inputs + 2 * size(out) + size(maps)


def time_case(
    case: Case, example: Example, device: torch.device, clock: HostClock | EventClock, commit: str, command: str
) -> Row:
    """Time one case, with inputs that the cache holds and, if they are large enough, with inputs that it does not."""
    call, inputs, moved = prepared(case, example, device)
    sets = sets_needed(inputs, clock.cache)
    calls = [call, *(prepared(case, example, device)[0] for _ in range((sets or 1) - 1))]
    graphs = device.type == "cuda" and example.fixed_size

    def timed(chosen):
        nonlocal graphs
        if graphs:
            try:
                return measure(chosen, clock, lambda batch: as_graph(batch, device))
            except RuntimeError as error:
                print(f"rpcnn: {case}: timed without a CUDA graph, whose capture failed: {error}", flush=True)
                graphs = False
        return measure(chosen, clock)

    warm, cold = timed(calls[:1]), timed(calls) if sets else None
    timed_by = "graph" if graphs else "events" if device.type == "cuda" else "host"
    dtype = str(case.dtype).removeprefix("torch.")
    return Row(case.op, case.direction, dtype, cold, warm, moved, timed_by, clock.megahertz, commit, command)


def copy_speed(device: torch.device, clock: HostClock | EventClock) -> float:
    """GB/s at which the device copies 256 MB, read and write counted."""
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / measure([lambda: target.copy_(source)], clock).median / 1e3
