"""The released code's variant at widths that compute in no time, and what its preset changes."""

import dataclasses

import torch

from helpers.models import TINY
from rpcnn.config import Config, load_config
from rpcnn.model import RPRCNN

CONFIG = load_config("released")


def differences(config: Config, other: Config) -> dict[str, object]:
    """Fields as "group.name" in which a configuration differs from another, with its values."""
    return {
        f"{group.name}.{field.name}": getattr(getattr(config, group.name), field.name)
        for group in dataclasses.fields(Config)
        for field in dataclasses.fields(getattr(config, group.name))
        if getattr(getattr(config, group.name), field.name) != getattr(getattr(other, group.name), field.name)
    }


# The arguments of RPRCNN that the preset sets.
MODEL = {
    name.removeprefix("model."): value
    for name, value in differences(CONFIG, Config()).items()
    if name.startswith("model.")
}


def released(**arguments) -> RPRCNN:
    """The released network, small."""
    torch.manual_seed(0)
    return RPRCNN(**TINY | MODEL | arguments)
