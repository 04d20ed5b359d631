"""From weights on disk to a pipeline: the one way that every command and the Predictor take."""

import pathlib

import torch

from rpcnn.config import Config
from rpcnn.model import RPRCNN
from rpcnn.model.build import build_model
from rpcnn.runtime.checkpoint import Weights

from .pipeline import Pipeline


def place(model: RPRCNN, device: torch.device) -> RPRCNN:
    """The model on the device, its feature maps with channels innermost."""
    return model.to(device).to(memory_format=torch.channels_last)


def load_pipeline(weights: Weights, config: Config, device: torch.device, progress: bool = False) -> Pipeline:
    """The network of `weights` with what `config` puts around it, on a device.

    Args:
        config: that of the weights, with changes that leave the network's architecture alone.
        progress: draw a bar of the passes of test-time augmentation.

    Raises:
        ValueError: the configuration's network is another one than the weights'.
    """
    model = build_model(config, weights.label_set.num_classes)
    try:
        model.load_state_dict(weights.state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        raise ValueError(f"weights: they do not fit the configuration: {' '.join(reason[1:3]).strip()}") from None
    return Pipeline(place(model, device), config, weights.label_set, progress)


def folder_of(weights: str | pathlib.Path) -> pathlib.Path:
    """The run folder of weights: itself, or where the file lies."""
    weights = pathlib.Path(weights)
    return weights if weights.is_dir() else weights.parent
