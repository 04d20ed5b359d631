"""Two processes compute the same gradients as one process with the whole batch.

Float64 excludes rounding effects: float32 gradients of small parameters differ by 3e-4 of their norm.
"""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers.models import scene, tiny, train
from torch.nn.parallel import DistributedDataParallel

SCENES = ((1, 2), (2, 1), (3, 0), (4, 0))  # seed, people; the second process gets images without people


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = tiny().double()
    scenes = [scene(seed, people=people) for seed, people in SCENES[2 * rank : 2 * rank + 2]]
    parallel = DistributedDataParallel(model)  # must outlive the backward pass: it averages the gradients
    losses = train(parallel, scenes)
    sum(losses.values()).backward()
    losses = {name: loss.item() for name, loss in losses.items()}
    torch.save((losses, gradients(model)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_two_processes_equal_one(tmp_path):
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    (losses0, grads0), (losses1, grads1) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    model = tiny().double()
    whole = train(model, [scene(seed, people=people) for seed, people in SCENES])
    sum(whole.values()).backward()
    for name, loss in whole.items():
        # The detector's logits are float32 in any model: a unit in the last place is 1.2e-7.
        assert (losses0[name] + losses1[name]) / 2 == pytest.approx(loss.item(), rel=2.4e-7, abs=1e-12)
    for name, grad in gradients(model).items():
        assert torch.equal(grads0[name], grads1[name])
        assert (grads0[name] - grad).norm() <= 1e-9 * grad.norm() + 1e-12, name
