"""The collective operations of training and evaluation; without a process group they work on one process."""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist

from .rendezvous import fresh_store

TIMEOUT = datetime.timedelta(hours=2)
"""Of collective operations. One process may paint or index a data set while the others wait; torchrun notices a dead
process by itself, within seconds."""
CONNECTING = datetime.timedelta(minutes=10)
"""Until all processes have started."""
CONNECTING_AGAIN = datetime.timedelta(seconds=45)
"""The same after a restart by torchrun, which may fail; another attempt then follows."""


def is_initialized() -> bool:
    """Whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The rank of this process, 0 without a process group."""
    return dist.get_rank() if is_initialized() else 0


def world_size() -> int:
    """The number of processes, 1 without a process group."""
    return dist.get_world_size() if is_initialized() else 1


def is_main() -> bool:
    """Whether this is the main process (rank 0), which writes files and logs."""
    return rank() == 0


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the tensor over all processes, as a new tensor."""
    tensor = tensor.detach().clone()
    if is_initialized():
        dist.all_reduce(tensor)
    return tensor


def all_reduce_max(tensor: torch.Tensor) -> torch.Tensor:
    """The element-wise maximum of the tensor over all processes, as a new tensor."""
    tensor = tensor.detach().clone()
    if is_initialized():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def largest_number(number: int) -> int:
    """The largest of the numbers of all processes. It passes between the hosts and does not wait for a GPU."""
    return int(all_reduce_max(torch.tensor(number))) if is_initialized() else number


def gather_objects(value) -> list:
    """Gather the values of all processes, in rank order, on every process."""
    if not is_initialized():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def failing_together():
    """Context in which an error in one process is raised in all processes, after all have left the block.

    Every process must enter it. Without it the other processes would wait forever at the next collective operation.

    Raises:
        ValueError: ValueError or OSError in another process, an error of its input; the message names the process.
        RuntimeError: any other error in another process.
    """
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    errors = gather_objects(error and (isinstance(error, ValueError | OSError), f"{type(error).__name__}: {error}"))
    if error:
        raise error
    for number, other in enumerate(errors):
        if other:
            is_input_error, text = other
            raise (ValueError if is_input_error else RuntimeError)(f"process {number}: {text}")


def on_main(work: Callable):
    """Run work() on the main process and return its result on all; an error is raised on all (`failing_together`)."""
    value = None
    with failing_together():
        if is_main():
            value = work()
    return gather_objects(value)[0]


def copy_from_main(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite the tensors with those of the main process."""
    if is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def only_one(program: str) -> None:
    """Raise ValueError if torchrun started several processes, all of which would do the same work."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        raise ValueError(f"{program} must run in one process, got {processes}")


def pick_device(device: str) -> torch.device:
    """The device of a name: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: unknown name, or the CUDA device is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda") or (chosen.type == "cpu" and chosen.index):
        raise ValueError(f"device: must be auto, cpu, cuda or cuda:N, got {device!r}")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {device!r} was asked for, but torch sees no CUDA device; use --device cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: {device!r} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    return chosen


def start(device: str) -> torch.device:
    """Choose the device of this rank and, under torchrun, initialize the process group.

    Tensors on a GPU pass through NCCL, tensors on the CPU through gloo.

    Args:
        device: see `pick_device`; "cuda" takes the device of the local rank.
    """
    chosen = pick_device(device)
    if chosen == torch.device("cuda"):
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not is_initialized():
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        limit = CONNECTING_AGAIN if attempt else CONNECTING
        store, own, size = fresh_store(limit)
        dist.init_process_group(backend, store=store, rank=own, world_size=size, timeout=limit)
        # Public since torch 2.14.
        set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
        set_timeout(TIMEOUT, dist.group.WORLD)
    return chosen


def stop() -> None:
    """Destroy the process group, if there is one."""
    if is_initialized():
        dist.destroy_process_group()
