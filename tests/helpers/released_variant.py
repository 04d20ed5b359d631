"""The released code's variant with few channels, and the fields that its preset changes."""

import dataclasses

import torch

from helpers.models import NUM_CLASSES, TINY, configured
from rpcnn.config import Config, load_config
from rpcnn.model import RPRCNN
from rpcnn.model.build import build_model

CONFIG = load_config("released")


def differences(config: Config, other: Config) -> dict[str, object]:
    """Map "group.name" of every field that differs from `other` to its value in `config`."""
    return {
        f"{group.name}.{field.name}": getattr(getattr(config, group.name), field.name)
        for group in dataclasses.fields(Config)
        for field in dataclasses.fields(getattr(config, group.name))
        if getattr(getattr(config, group.name), field.name) != getattr(getattr(other, group.name), field.name)
    }


def released(num_classes: int = NUM_CLASSES, **changes) -> RPRCNN:
    """The released network, small."""
    torch.manual_seed(0)
    return build_model(configured(CONFIG, **TINY | changes), num_classes)
