"""Inference with the default configuration; tests override single settings."""

from rpcnn.config import Config
from rpcnn.inference.augmented import AugmentedInference
from rpcnn.inference.combine import combine
from rpcnn.inference.results import ParsingResult

DEFAULTS = Config().inference


def combined(detections, image_size, label_set, **changes) -> ParsingResult:
    """`combine` with default settings."""
    settings = {
        "min_score": DEFAULTS.min_parsing_score,
        "semantic_gate": DEFAULTS.semantic_gate,
        "instance_semantic_weight": DEFAULTS.instance_semantic_weight,
        "semantic_mode": DEFAULTS.semantic_mode,
    }
    return combine(detections, image_size, label_set, **settings | changes)


def augmenting(model, label_set, scales, **changes) -> AugmentedInference:
    """`AugmentedInference` with default settings."""
    settings = {
        "flip": DEFAULTS.augment_flip,
        "suppression": DEFAULTS.soft_nms,
        "voting_iou": DEFAULTS.voting_iou,
    }
    return AugmentedInference(model, label_set, scales, **settings | changes)
