"""Reading configurations of version 0.1, so that its run folders, weights and TOML files stay usable."""

import logging

log = logging.getLogger(__name__)

PAINTED = {"painted_train": "train", "painted_val": "val", "painted_short_side": "short_side"}
PAINTED |= {"painted_difficulty": "difficulty"}

VARIANT = {
    "data": ("short_sides", "test_resize"),
    "model": (
        *("stride_in_1x1", "aligned", "pyramid_levels", "gse_embedding", "prsn_input", "prsn_stride"),
        *("rescoring_loss", "ignore_padding", "normalise_per_process", "pixel_format", "test_padding"),
        *("inclusive_boxes", "rpn_top_per_batch", "parsing_crop", "clamp_iou", "crop_semantic"),
    ),
    "test": ("pasting", "skip_empty"),
}
"""Fields that have moved to the variant."""

MOVED = {
    ("data", "test_short_side"): ("inference", "test_short_side"),
    ("data", "test_long_side_max"): ("inference", "test_long_side_max"),
    ("model", "score_threshold"): ("inference", "min_box_score"),
    **{("model", f"lambda_{name}"): ("loss", f"lambda_{name}") for name in ("parsing", "semantic", "rescoring")},
    **{
        ("model", name): ("sampling", name)
        for name in ("rpn_top_train", "rpn_ignore_border", "box_samples", "parsing_samples")
    },
    **{("model", name): ("inference", name) for name in ("rpn_top_test", "nms_threshold", "max_detections")},
    ("test", "score_threshold"): ("inference", "min_parsing_score"),
    **{("test", name): ("run", name) for name in ("save_predictions", "pictures")},
    **{
        ("test", name): ("inference", name)
        for name in (
            *("semantic_mode", "semantic_gate", "instance_semantic_weight", "augment", "augment_scales"),
            *("augment_flip", "soft_nms", "voting_iou"),
        )
    },
}

PARTS = {
    "anchor_ratios": ("rpn", "anchor_ratios", [0.5, 1.0, 2.0]),
    "rpn_nms_threshold": ("rpn", "nms_threshold", 0.7),
    "rpn_samples": ("rpn", "samples", 256),
    "box_resolution": ("box_head", "resolution", 7),
    "box_positive_fraction": ("box_head", "positive_fraction", 0.25),
    "gse_convs": ("gse", "num_convs", 4),
    "parsing_convs": ("parsing_head", "num_convs", 4),
    "aspp_channels": ("parsing_head", "aspp_channels", 256),
    "prsn_channels": ("prsn", "channels", 128),
    "prsn_hidden": ("prsn", "hidden", 256),
    "aspp_dilations": ("parsing_head", "aspp_dilations", [6, 12, 18]),
}
"""Fields of [model], the arguments that they have become, and their defaults; other values go into model.parts."""

FIXED = {
    ("data", "train_split"): "train",
    ("test", "augment_long_side_max"): 2000,
    ("test", "soft_nms_sigma"): 0.5,
    ("train", "warmup_factor"): 1e-4,
    ("train", "momentum"): 0.9,
}
"""Fields that are constants now; other values give a warning."""

DROPPED = {("model", "parsing_chunk"), ("run", "channels_last"), ("run", "threads")}
"""Fields that are ignored: they changed only speed or memory."""


def renamed(values: dict, source: str) -> dict:
    """Move every field of version 0.1 to its current name; other fields stay.

    Args:
        values: nested dictionaries of a configuration.
        source: begins warnings.
    """
    result: dict = {}
    painted: dict = {}
    parts: dict = {}
    variant: dict = {}
    low_high: dict = {}
    for group, entries in values.items():
        if not isinstance(entries, dict):
            result[group] = entries
            continue
        kept = result.setdefault(group, {})
        for key, value in entries.items():
            value = list(value) if isinstance(value, tuple) else value
            if key in VARIANT.get(group, ()):
                variant[key.replace("normalise", "normalize")] = value
            elif (group, key) in MOVED:
                new_group, new_key = MOVED[group, key]
                result.setdefault(new_group, {})[new_key] = value
            elif group == "data" and key in PAINTED:
                painted[PAINTED[key]] = value
            elif group == "data" and key in ("short_side_min", "short_side_max"):
                low_high[key] = value
            elif group == "model" and key in PARTS:
                part, argument, default = PARTS[key]
                if value != default:
                    parts.setdefault(part, {})[argument] = value
            elif (group, key) in FIXED:
                now = FIXED[group, key]
                if value != now:
                    log.warning("%s: %s.%s is %r since version 0.2, was %r", source, group, key, now, value)
            elif (group, key) not in DROPPED:
                kept[key] = value
    if not result.get("test"):
        result.pop("test", None)  # its fields have moved; the caller reports unknown ones
    if parts:
        result["model"]["parts"] = parts | result["model"].get("parts", {})
    if low_high:
        result["data"]["short_side"] = [low_high.get("short_side_min", 512), low_high.get("short_side_max", 864)]
    if painted and result["data"].get("dataset") == "painted":
        result["data"]["options"] = painted | result["data"].get("options", {})
    if variant:
        given = result.get("variant", {})
        result["variant"] = variant | (given if isinstance(given, dict) else {"base": given})
    return result
