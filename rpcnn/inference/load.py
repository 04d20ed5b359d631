"""Loading a pipeline from weights; used by all commands and by the Predictor."""

import pathlib

import torch

from rpcnn.config import Config
from rpcnn.model import RPRCNN
from rpcnn.model.build import build_model
from rpcnn.runtime import checkpoint
from rpcnn.runtime.checkpoint import Weights

from .pipeline import Pipeline

SHIPPED = "photo"
"""The name of the model that comes with the package."""
SHIPPED_FILE = pathlib.Path(__file__).parents[1] / "weights" / "photo.safetensors"
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def load_weights(path: str | pathlib.Path) -> Weights:
    """Read a model.safetensors of any origin, see :func:`rpcnn.runtime.checkpoint.load_weights`.

    Args:
        path: of the file or of its run folder; "photo", if there is no such folder here, is the model that comes with
            the package.

    Raises:
        ValueError: also for metadata that hold something else than rpcnn writes.
    """
    if str(path) == SHIPPED and not pathlib.Path(SHIPPED).exists():
        path = SHIPPED_FILE
    try:
        return checkpoint.load_weights(path)
    except (AttributeError, KeyError, NotImplementedError, RecursionError, RuntimeError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise ValueError(f"weights: {path} is not what rpcnn writes: {reason}") from None


def place(model: RPRCNN, device: torch.device) -> RPRCNN:
    """Move the model to the device, in the memory format channels_last."""
    return model.to(device).to(memory_format=torch.channels_last)


def load_pipeline(weights: Weights, config: Config, device: torch.device, **options: bool) -> Pipeline:
    """Build the network, load the weights and make a pipeline on the device.

    Args:
        weights: state dict and label set.
        config: that of the weights; changes must keep the architecture of the network.
        options: progress and keep_probabilities of `Pipeline`.

    Raises:
        ValueError: the weights do not fit the network of the configuration.
    """
    model = build_model(config, weights.label_set.num_classes)
    for key, wanted in model.state_dict().items():
        given = weights.state.get(key)
        if given is not None and wanted.is_floating_point() and given.dtype not in FLOATS:
            raise ValueError(f"weights: they do not fit the configuration: {key} must hold floats, got {given.dtype}")
    try:
        model.load_state_dict(weights.state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        text = " ".join(reason[1:3]).strip()
        text = text if len(text) < 300 else f"{text[:300]} …"
        raise ValueError(f"weights: they do not fit the configuration: {text}") from None
    return Pipeline(place(model, device), config, label_set=weights.label_set, **options)


def folder_of(weights: str | pathlib.Path) -> pathlib.Path:
    """The run folder of weights: the path itself if it is a folder, else the folder of the file."""
    weights = pathlib.Path(weights)
    return weights if weights.is_dir() else weights.parent
