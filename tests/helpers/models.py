"""A tiny network, backbones, input scenes and a training step, shared by many tests."""

import copy
import dataclasses

import torch

from rpcnn.config import Config
from rpcnn.model import RPRCNN
from rpcnn.model.backbones import make_backbone
from rpcnn.model.box_head import BoxHead
from rpcnn.model.build import build_model
from rpcnn.model.frozen_norm import FrozenBatchNorm2d

LOSSES = ["rpn_objectness", "rpn_box", "box_class", "box_regression", "parsing", "semantic", "rescoring"]

TINY = {
    "backbone": "resnet18",
    "backbone_norm": "gn",
    "backbone_width": 0.25,
    "freeze_at": 0,
    "fpn_channels": 16,
    "num_groups": 4,
    "anchor_sizes": (16, 32, 64, 128, 256),
    "rpn_top_train": 60,
    "rpn_top_test": 30,
    "box_channels": 32,
    "box_samples": 32,
    "canonical_size": 56,
    "parsing_channels": 16,
    "parsing_resolution": 8,
    "parsing_output": 32,
    "parsing_samples": 4,
    "parts": {
        "gse": {"num_convs": 1},
        "parsing_head": {"num_convs": 1, "aspp_channels": 8},
        "prsn": {"channels": 8, "hidden": 8},
    },
}
NUM_CLASSES = 6


def configured(config: Config, **changes) -> Config:
    """Copy `config` with fields changed by name; field names are unique over all groups, the variant included."""
    config = copy.deepcopy(config)
    for name, value in changes.items():
        if hasattr(config.variant, name):
            config.variant = dataclasses.replace(config.variant, **{name: value})
            continue
        (group,) = [part for part in vars(config).values() if part is not config.variant and hasattr(part, name)]
        setattr(group, name, value)
    return config


def tiny(num_classes: int = NUM_CLASSES, parts: dict | None = None, **changes) -> RPRCNN:
    torch.manual_seed(0)
    for part, given in (parts or {}).items():
        own = TINY["parts"].get(part, {})
        changes["parts"] = changes.get("parts", TINY["parts"]) | {
            part: own | given if isinstance(given, dict) else given
        }
    return build_model(configured(Config(), **TINY | changes), num_classes)


def backbone(name: str = "resnet50", **changes) -> torch.nn.Module:
    """A backbone with the paper's settings, overridden by `changes`."""
    choices = {"weights": "", "norm": "frozen_bn", "freeze_at": 2, "width": 1.0, "stride_in_1x1": False}
    return make_backbone(name, **choices | changes)


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Randomize the statistics and weights of all batch norms, frozen ones included; return the model in eval mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, torch.nn.BatchNorm2d | FrozenBatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def scene(seed: int, height: int = 64, width: int = 96, people: int = 2):
    """An image uint8 [3, H, W] of people drawn as colored rectangles, head above body, and its target dict."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 60, (3, height, width), dtype=torch.uint8, generator=generator)
    person_maps = torch.zeros(people, height, width, dtype=torch.uint8)
    boxes = torch.zeros(people, 4)
    for i in range(people):
        x, y = 6 + 40 * i + 3 * seed % 7, 8 + 4 * i
        person_maps[i, y : y + 40, x : x + 24] = 1 + i
        person_maps[i, y : y + 14, x : x + 24] = 4
        boxes[i] = torch.tensor([x, y, x + 24, y + 40])
        image[i, person_maps[i] == 1 + i] = 220
        image[:, person_maps[i] == 4] = 250
    label_map = person_maps.amax(0) if people else torch.zeros(height, width, dtype=torch.uint8)
    return image, {"boxes": boxes, "person_maps": person_maps, "label_map": label_map, "seed": seed}


def train(model, scenes):
    images, targets = zip(*scenes, strict=True)
    return model.train()(list(images), list(targets))


def permissive(make=tiny, **arguments) -> RPRCNN:
    """A model in eval mode that detects a person in nearly every box; `make` is `tiny` or `released`."""
    model = make(min_box_score=0.0, **arguments).eval()
    with torch.no_grad():
        model.rpn.objectness.weight.normal_()
        model.box_head.classes.weight.normal_()
    return model


def with_varied_ious(model):
    """Make the PRSN predict different mIoUs within 0..1, so that clamping changes nothing; return the model."""
    torch.nn.init.normal_(model.prsn.iou.weight, std=0.3)
    torch.nn.init.constant_(model.prsn.iou.bias, 0.5)
    return model


def box_head(**arguments) -> BoxHead:
    options = {"samples": 512, "min_score": 0.05, "nms_threshold": 0.5, "max_detections": 100} | arguments
    return BoxHead(channels=1, strides=(4, 8, 16, 32, 64), hidden=2, canonical_size=224, **options)
