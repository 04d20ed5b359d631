"""The devices that a run may name."""

import pytest
import torch

from rpcnn.runtime.distributed import pick_device


@pytest.mark.parametrize("name", ["banana", "meta", "mps", "xpu", "cpu:7", ""])
def test_others_than_cpu_and_cuda_are_refused(name):
    with pytest.raises(ValueError, match=f"^device: must be auto, cpu, cuda or cuda:N, got '{name}'$"):
        pick_device(name)


def test_a_cuda_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no CUDA device; use --device cpu"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="'cuda:2' was asked for, but there are 2 CUDA devices"):
        pick_device("cuda:2")
