"""Every op compiles once for all sizes: one graph for the first size, and one for all others."""

import pytest
import torch
from helpers.layouts import needs_kernels
from torch._dynamo.testing import CompileCounter

from rpcnn import ops
from rpcnn.ops import drop_in

pytestmark = needs_kernels

SIZES = range(14)


def boxes(count: int) -> torch.Tensor:
    corners = torch.rand(count, 2) * 20
    return torch.cat([corners, corners + 1 + torch.rand(count, 2) * 10], 1)


def rois(count: int) -> torch.Tensor:
    return torch.cat([torch.zeros(count, 1), boxes(count)], 1)


def levels(n: int) -> list[torch.Tensor]:
    return [torch.rand(2 + n % 3, 8, 8 + 4 * n >> level, 12 + 4 * n >> level) for level in range(3)]


def crowd(n: int) -> dict:
    return {"boxes": boxes(20 + n), "scores": torch.rand(20 + n), "iou_threshold": 0.5}


def affine(name: str) -> dict:
    return {name: [torch.rand(8) for _ in range(3)]}


CALLS = {
    "roi_align": lambda n: {"input": levels(n)[0], "boxes": rois(5 + n), "output_size": 3 + n, "sampling_ratio": 2},
    "multilevel_roi_align": lambda n: {
        "features": levels(n),
        "boxes": rois(5 + n),
        "output_size": (3, 4),
        "spatial_scales": [1 / 2, 1 / 4, 1 / 8],
    },
    "roi_levels": lambda n: {"boxes": boxes(5 + n), "spatial_scales": [1 / 2, 1 / 4]},
    "nms": lambda n: crowd(n),
    "batched_nms": lambda n: crowd(n) | {"idxs": torch.arange(20 + n) % 3},
    "nms_padded": lambda n: crowd(n) | {"idxs": None, "max_keep": 10 + n},
    "grid_anchors": lambda n: {
        "cells": torch.rand(2, 3, 4),
        "strides": [4, 8],
        "sizes": [(8 + n, 9 + n), (4 + n, 5 + n)],
    },
    "decode_proposals": lambda n: {
        "deltas": [torch.rand(2, 30 + n, 4), torch.rand(2, 15 + n, 4)],
        "best": [torch.arange(10 + n).expand(2, -1), torch.arange(5).expand(2, -1)],
        "anchors": boxes(45 + 2 * n),
        "image_sizes": [(40 + n, 50 + n), (60 + n, 30 + n)],
    },
    "match_boxes": lambda n: {
        "boxes": boxes(20 + n),
        "gt_boxes": boxes(3 + n),
        "positive": 0.5,
        "negative": 0.3,
        "image_size": (30 + n, 40 + n),
    },
    "draw_samples": lambda n: {
        "matched": torch.arange(20 + n) % 3 - 1,
        "keys": torch.rand(20 + n),
        "count": 8 + n,
        "max_positive": 4 + n,
    },
    "encode_boxes": lambda n: {
        "gt_boxes": boxes(3 + n),
        "references": boxes(20 + n),
        "matched": torch.arange(20 + n) % 3 - 1,
    },
    "upsample_sum": lambda n: {"features": levels(n)},
    "gse_fuse": lambda n: {"features": levels(n), "num_groups": 2} | affine("gn_weights") | affine("gn_biases"),
    "group_norm": lambda n: {"input": levels(n)[0], "num_groups": 2, "weight": torch.rand(8), "bias": torch.rand(8)},
    "downsample_add": lambda n: {"feature": levels(n)[0], "pyramid": levels(n)},
    "parsing_miou": lambda n: {
        "logits_or_labels": torch.rand(3 + n, 5, 8 + n, 9 + n),
        "target": torch.ones(3 + n, 8 + n, 9 + n, dtype=torch.uint8),
    },
    "parsing_loss": lambda n: {
        "logits": torch.rand(3 + n, 5, 8 + 4 * n, 12 + 4 * n),
        "target": torch.ones(3 + n, 8 + 4 * n, 12 + 4 * n, dtype=torch.uint8),
        "pool": 4,
    },
    "paste_parsing": lambda n: {
        "probabilities": torch.rand(3 + n, 5, 8 + n, 9 + n),
        "boxes": boxes(3 + n),
        "image_size": (30 + n, 40 + n),
        "semantic": torch.rand(5, 8 + n, 10 + n),
        "semantic_size": (32.5 + n, 40.5 + n),
        "semantic_weight": 0.2,
        "semantic_gate": 0.7,
    },
}


def test_every_op_is_here():
    public = set(ops.__all__) - set(drop_in.__all__)
    assert CALLS.keys() == {name for name in public if not name.endswith("_reference")}


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("op", CALLS)
def test_two_graphs_serve_all_sizes(op, dynamic):
    torch.compiler.reset()
    graphs, function = CompileCounter(), getattr(ops, op)
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=graphs)
    for n in SIZES:
        arguments = CALLS[op](n)
        torch.testing.assert_close(compiled(**arguments), function(**arguments), rtol=0, atol=0)
    assert graphs.frame_count <= 2, f"{graphs.frame_count} graphs for {len(SIZES)} sizes"
