"""The few collective operations that training and evaluation need, harmless in one process."""

import os

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


def barrier() -> None:
    """Waits for every process."""
    if is_initialized():
        dist.barrier()


def start(device: str) -> torch.device:
    """Joins the process group that torchrun announces (NCCL for CUDA, gloo for the CPU) and picks this rank's device.

    Args:
        device: "auto" (CUDA where available), "cpu", "cuda" or "cuda:N".
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("device: 'cuda' was asked for, but torch sees no CUDA device; use --run.device cpu")
    chosen = torch.device("cuda", local_rank) if device == "cuda" else torch.device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def stop() -> None:
    """Leaves the process group."""
    if is_initialized():
        dist.destroy_process_group()
