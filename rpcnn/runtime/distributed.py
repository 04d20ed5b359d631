"""The few collective operations that training and evaluation need, harmless in one process."""

import contextlib
import os
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist


def is_initialized() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 in one process."""
    return dist.get_rank() if is_initialized() else 0


def world_size() -> int:
    """The number of processes, 1 without a process group."""
    return dist.get_world_size() if is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the tensor over all processes, as a new tensor."""
    tensor = tensor.detach().clone()
    if is_initialized():
        dist.all_reduce(tensor)
    return tensor


def gather_objects(value) -> list:
    """Every process's value, in rank order, on every process."""
    if not is_initialized():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def failing_together():
    """An error in one process's block is raised in every process when all are through; every process must enter it.

    Otherwise the others would go on to the next collective operation and wait there for the one that has gone.

    Raises:
        ValueError: another process had a ValueError or OSError, a fault of its input; names the process.
        RuntimeError: another process had another error.
    """
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    told = gather_objects(error and (isinstance(error, ValueError | OSError), f"{type(error).__name__}: {error}"))
    if error:
        raise error
    for number, other in enumerate(told):
        if other:
            of_input, text = other
            raise (ValueError if of_input else RuntimeError)(f"process {number}: {text}")


def on_main(work: Callable):
    """What work() gives in the main process, on every process; its error is raised in all, as failing_together does."""
    value = None
    with failing_together():
        if is_main():
            value = work()
    return gather_objects(value)[0]


def copy_from_main(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrites the tensors with those of the main process."""
    if is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def only_one(program: str) -> None:
    """Raises ValueError where torchrun started several processes, all of which would do the same work."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        raise ValueError(f"{program} runs in one process, got {processes}")


def pick_device(device: str) -> torch.device:
    """The device of a name: "auto" (CUDA where available), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: must be auto, cpu, cuda or cuda:N, got {device!r}") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {device!r} was asked for, but torch sees no CUDA device; use --device cpu")
    return chosen


def start(device: str) -> torch.device:
    """Picks this rank's device and joins the process group that torchrun announces: NCCL for CUDA, gloo for the CPU.

    Args:
        device: see `pick_device`; "cuda" is the one of this process's local rank.
    """
    chosen = pick_device(device)
    if chosen == torch.device("cuda"):
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def stop() -> None:
    """Leaves the process group."""
    if is_initialized():
        dist.destroy_process_group()
