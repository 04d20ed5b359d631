"""Settings of the process that all commands share: seeds and determinism."""

import os
import random

import numpy as np
import torch


def set_up_torch(seed: int, deterministic: bool = False) -> None:
    """Seed all random generators; `deterministic` allows only deterministic algorithms."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
