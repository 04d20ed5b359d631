"""ImageNet weights: a classifier's state dict to that of a backbone's body."""

import pathlib
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

from rpcnn.runtime.unpickle import read_state_dict

from .mobilenet import MobileNetV2
from .resnet import ResNet


def load_imagenet(backbone: ResNet | MobileNetV2, path: str | pathlib.Path) -> None:
    """Loads the state dict of a classifier (.pth, .pt, .safetensors) under torchvision's names, caffe's included.

    Raises ValueError where it is no classifier of the backbone's kind and width, or where the backbone has GroupNorm.
    """
    if any(isinstance(module, nn.GroupNorm) for module in backbone.modules()):
        raise ValueError("backbone weights: they come with batch statistics; norm='gn' cannot use them")
    state = imagenet_weights(backbone.name, backbone.width, read_state_dict(path), path)
    backbone.body.load_state_dict(state)


def imagenet_weights(name: str, width: float, state: dict[str, Tensor], path: str | pathlib.Path) -> dict[str, Tensor]:
    """State of the body called `name` from the state of a classifier, under the body's names.

    Matched by name where the file at `path` uses torchvision's names, else by order where it has as many tensors of
    exactly the same shapes. Raises ValueError where neither holds.
    """
    build = getattr(torchvision.models, name)
    if name == MobileNetV2.name:
        build = partial(build, width_mult=width)
    elif width != 1:
        raise ValueError(f"backbone weights: {name} has weights for width 1 only, got width {width}")
    with torch.device("meta"):
        classifier = build(weights=None)
    wanted = {k: v.shape for k, v in classifier.state_dict().items() if not k.startswith(("fc.", "classifier."))}
    if name == MobileNetV2.name:
        state = {k if k.startswith(("features.", "classifier.")) else f"features.{k}": v for k, v in state.items()}
    features = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier."))}
    optional = {k for k in wanted if k.endswith("num_batches_tracked") or k.startswith("features.18.")}
    if wanted.keys() - features.keys() - optional:
        features = dict(zip(wanted, features.values(), strict=False)) if len(features) == len(wanted) else features
    missing = [k for k in wanted if k not in features and k not in optional]
    if missing:
        raise ValueError(
            f"backbone weights: {path} is no {name}: {len(features)} tensors, {len(wanted)} wanted, "
            f"{missing[0]!r} not among them"
        )
    for key, shape in wanted.items():
        if key in features and features[key].shape != shape:
            raise ValueError(
                f"backbone weights: {path} is no {name}: {key!r} must have shape {list(shape)}, "
                f"got {list(features[key].shape)}"
            )
    used = {k: v for k, v in features.items() if k in wanted and not k.startswith("features.18.")}
    # Files without the counter of batches, which nothing here reads.
    used |= {k: torch.tensor(0) for k in wanted if k.endswith("num_batches_tracked") and k not in features}
    return {k.removeprefix("features."): v for k, v in used.items() if not k.startswith("features.18.")}
