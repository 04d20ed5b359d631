"""What the `run` group of a configuration asks of this process and of a model, the same for every command."""

import os
import random

import numpy as np
import torch
from torch import Tensor

from .config import Config
from .model import RPRCNN


def set_up_torch(config: Config) -> None:
    """Seeds, threads and determinism of this process."""
    run = config.run
    random.seed(run.seed)
    np.random.seed(run.seed % 2**32)
    torch.manual_seed(run.seed)
    torch.set_float32_matmul_precision("high")
    if run.threads:
        torch.set_num_threads(run.threads)
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def place(model: RPRCNN, config: Config, device: torch.device) -> RPRCNN:
    """The model on the device, in the memory layout of run.channels_last."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if config.run.channels_last else model


def trained_model(state: dict[str, Tensor], config: Config, device: torch.device) -> RPRCNN:
    """The network of a configuration with trained weights, placed, in eval mode."""
    model = RPRCNN.from_config(config)
    model.load_state_dict(state)
    return place(model, config, device).eval()
