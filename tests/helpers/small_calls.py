"""A call of every operator that is small enough to be stepped through, instruction by instruction."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_map_only

from rpcnn.ops import batched_nms
from rpcnn.ops._examples import Example
from rpcnn.ops._library import OPS

from .recorded import Recorded

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
OP_NAMES = [*OPS, "batched_nms"]
SIZES = [(16, 24), (8, 12), (4, 6)]
STRIDES = [4, 8, 16]


def small_examples() -> dict[str, Example]:
    """The example of each op with so few pixels, boxes and channels that loops still execute most instructions.

    A new op keeps the example that it was registered with until it has a line here.
    """
    generator = torch.Generator().manual_seed(0)
    random = lambda *size: torch.rand(*size, generator=generator)
    levels = [random(1, 16, *size) - 0.5 for size in SIZES]
    vectors = [random(16) for _ in SIZES]
    corners = random(64, 2) * torch.tensor([60.0, 40.0])
    boxes = torch.cat([corners, corners + 4 + 32 * random(64, 2)], 1)
    logits, target = 4 * random(2, 8, 16, 16), torch.arange(512).reshape(2, 16, 16) % 8
    crowd, grouped = {"boxes": boxes, "scores": random(64)}, {"idxs": torch.arange(64) % 3}
    rois = {"boxes": F.pad(boxes[:3], (1, 0)), "output_size": (7, 7)}
    norm = {"input": random(1, 16, 32, 48), "residual": random(1, 16, 32, 48) - 0.5}
    norm |= {"num_groups": 4, "weight": vectors[0], "bias": vectors[1]}
    fused = {"features": levels[:2], "gn_weights": vectors[:2], "gn_biases": vectors[:2], "num_groups": 4}
    people = {"probabilities": logits.softmax(1), "boxes": boxes[:2] / 2, "painted": torch.tensor([True, True])}
    people |= {"image_size": (20, 24), "semantic": random(8, 5, 6), "semantic_size": (20.0, 24.0)}
    matched = torch.arange(512) % 5 - 1
    smaller = {
        "roi_align": {"input": levels[0]} | rois,
        "multilevel_roi_align": rois
        | {"features": levels, "spatial_scales": [1 / stride for stride in STRIDES], "canonical_size": 64.0},
        "nms": crowd,
        "nms_padded": crowd | grouped | {"max_keep": 32},
        "grid_anchors": {"cells": random(3, 3, 4), "strides": STRIDES, "sizes": SIZES},
        "match_boxes": {"boxes": boxes.repeat(8, 1), "gt_boxes": boxes[:6], "image_size": (80, 100)},
        "draw_samples": {"matched": matched, "keys": random(512), "count": 64, "max_positive": 16},
        "encode_boxes": {"references": boxes.repeat(8, 1), "matched": matched},
        "upsample_sum": {"features": levels},
        "gse_fuse": fused,
        "group_norm": norm,
        "downsample_add": {"feature": levels[0], "pyramid": levels},
        "parsing_miou": {"logits_or_labels": logits, "target": target, "num_classes": 8},
        "parsing_loss": {"logits": logits[:1], "target": target[:1].to(torch.uint8)},
        "paste_parsing": people,
    }
    examples = {}
    for op, make in OPS.items():
        example = make(small=True)
        examples[op] = dataclasses.replace(example, arguments={**example.arguments, **smaller.get(op, {})})
    together = crowd | grouped | {"iou_threshold": 0.5}
    return examples | {"batched_nms": dataclasses.replace(examples["nms"], function=batched_nms, arguments=together)}


def small_calls(op: str) -> dict[str, tuple[Callable, tuple]]:
    """List the operators that an op calls forward and backward, in both memory layouts if it takes maps.

    Returns:
        Operator and arguments by name, such as "roi_align backward channels_last" or "nms forward".
    """
    example, calls = small_examples()[op], {}
    maps = any(t.dim() == 4 for t in example.map_tensors(example.on("cpu")))
    for layout, memory_format in LAYOUTS.items() if maps else [("", torch.contiguous_format)]:
        with Recorded() as recorded:
            example.run(example.function, "cpu", layout=memory_format)
        for direction, (operator, arguments) in zip(("forward", "backward"), recorded.calls, strict=False):
            detached = tree_map_only(torch.Tensor, torch.Tensor.detach, arguments)
            calls[f"{op} {direction} {layout}".strip()] = operator, detached
    return calls
