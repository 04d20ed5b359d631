"""Loading ImageNet weights: the state dict of a classifier becomes that of a backbone's body."""

import pathlib

import torch
from torch import Tensor, nn

from rpcnn.runtime.unpickle import read_state_dict

from .mobilenet import MobileNetV2, conv_norm, rounded
from .resnet import ResNet


def load_imagenet(backbone: ResNet | MobileNetV2, path: str | pathlib.Path) -> None:
    """Load the state dict of an ImageNet classifier (.pth, .pt, .safetensors) with torchvision's names.

    Weights converted from caffe are supported, too.

    Raises:
        ValueError: the weights are not of the backbone's architecture and width, or the backbone has GroupNorm.
    """
    if any(isinstance(module, nn.GroupNorm) for module in backbone.modules()):
        raise ValueError("backbone weights: they come with batch statistics; norm='gn' cannot use them")
    state = imagenet_weights(backbone.name, backbone.width, state=read_state_dict(path), path=path)
    backbone.body.load_state_dict(state)


def imagenet_weights(name: str, width: float, state: dict[str, Tensor], path: str | pathlib.Path) -> dict[str, Tensor]:
    """Convert the state dict of a classifier to that of the body called `name`.

    Tensors are matched by name if the file uses torchvision's names, else by order if it has equally many tensors of
    the same shapes.

    Args:
        name: resnet18, resnet50, resnet101 or mobilenet_v2.
        width: factor on the numbers of channels.
        state: of the classifier.
        path: of the file, for messages.

    Raises:
        ValueError: the tensors match neither by name nor by order.
    """
    if name != MobileNetV2.name and width != 1:
        raise ValueError(f"backbone weights: {name} has weights for width 1 only, got width {width}")
    expected = tensors_of_classifier(name, width)
    if name == MobileNetV2.name:
        state = {k if k.startswith(("features.", "classifier.")) else f"features.{k}": v for k, v in state.items()}
    features = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier."))}
    optional = {k for k in expected if k.endswith("num_batches_tracked") or k.startswith("features.18.")}
    if expected.keys() - features.keys() - optional:
        features = dict(zip(expected, features.values(), strict=False)) if len(features) == len(expected) else features
    missing = [k for k in expected if k not in features and k not in optional]
    if missing:
        raise ValueError(
            f"backbone weights: {path} is no {name}: it must hold {len(expected)} tensors, got {len(features)}; "
            f"{missing[0]!r} is missing"
        )
    for key, shape in expected.items():
        if key in features and features[key].shape != shape:
            raise ValueError(
                f"backbone weights: {path} is no {name}: {key!r} must have shape {list(shape)}, "
                f"got {list(features[key].shape)}"
            )
    used = {k: v for k, v in features.items() if k in expected and not k.startswith("features.18.")}
    # Some files lack num_batches_tracked; it is not used here.
    used |= {k: torch.tensor(0) for k in expected if k.endswith("num_batches_tracked") and k not in features}
    return {k.removeprefix("features."): v for k, v in used.items() if not k.startswith("features.18.")}


def tensors_of_classifier(name: str, width: float) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of torchvision's classifier, in its order, without the last linear layer."""
    with torch.device("meta"):
        if name != MobileNetV2.name:
            body = ResNet(name, norm="bn", freeze_at=0, width=width, stride_in_1x1=False).body
            return {key: value.shape for key, value in body.state_dict().items()}
        backbone = MobileNetV2(norm="bn", freeze_at=0, width=width)
        last = conv_norm(backbone.channels[-1], rounded(1280 * max(width, 1.0)), nn.BatchNorm2d, kernel=1)
        whole = nn.Sequential(*backbone.body, last)
        return {f"features.{key}": value.shape for key, value in whole.state_dict().items()}
