"""The ranges of all numbers in a configuration, ends included. Lists must lie in them with every number."""

from typing import Any

MANY = 2**31 - 1
CHANNELS = (1, 65_536)
PIXELS = (1, 32_768)
"""Of a side that images are resized to: a batch of one then takes 13 GB of pixels."""

RANGES: dict[str, tuple[float, float]] = {
    "variant.short_sides": PIXELS,
    "variant.pyramid_levels": (1, 5),
    "variant.prsn_stride": (1, 8),
    "data.short_side": PIXELS,
    "data.long_side_max": PIXELS,
    "data.flip_probability": (0, 1),
    "data.workers": (0, 1024),
    "model.backbone_width": (1 / 64, 64),
    "model.freeze_at": (0, 5),
    "model.fpn_channels": CHANNELS,
    "model.num_groups": CHANNELS,
    "model.anchor_sizes": PIXELS,
    "model.canonical_size": PIXELS,
    "model.box_channels": CHANNELS,
    "model.parsing_resolution": (1, 4096),
    "model.parsing_output": (1, 4096),
    "model.parsing_channels": CHANNELS,
    "loss.lambda_parsing": (0, 1e6),
    "loss.lambda_semantic": (0, 1e6),
    "loss.lambda_rescoring": (0, 1e6),
    "sampling.rpn_top_train": (1, MANY),
    "sampling.box_samples": (1, MANY),
    "sampling.parsing_samples": (1, MANY),
    "inference.test_short_side": PIXELS,
    "inference.test_long_side_max": PIXELS,
    "inference.rpn_top_test": (1, MANY),
    "inference.min_box_score": (0, 1),
    "inference.nms_threshold": (0, 1),
    "inference.max_detections": (1, 65_535),  # the largest person number
    "inference.min_parsing_score": (0, 1),
    "inference.semantic_gate": (0, 1),
    "inference.instance_semantic_weight": (0, 1e6),
    "inference.augment_scales": (1 / 64, 64),
    "inference.voting_iou": (0, 1),
    "train.iterations": (1, MANY),
    "train.batch_size": (1, MANY),
    "train.accumulate": (1, MANY),
    "train.learning_rate": (1e-30, 1e6),
    "train.steps": (0, MANY),
    "train.warmup_iterations": (0, MANY),
    "train.weight_decay": (0, 1e6),
    "train.clip_gradient_norm": (0, 1e30),
    "train.ema_decay": (0, 1),
    "train.max_skips": (0, MANY),
    "run.seed": (0, 2**63 - 1),
    "run.log_every": (1, MANY),
    "run.save_every": (1, MANY),
    "run.evaluate_every": (0, MANY),
    "run.patience": (0, MANY),
    "run.pictures": (0, MANY),
}


def out_of_range(name: str, value: Any) -> str:
    """Say what is wrong with a value of the field `name`; "" if nothing is."""
    low, high = RANGES[name]
    numbers = value if isinstance(value, tuple | list) else (value,)
    if all(low <= number <= high for number in numbers):  # false for NaN
        return ""
    return f"{name} must lie in {low:.10g}..{high:.10g}, got {value!r}"
