"""From detections to maps of the whole image (Sec. 3.5, Fig. 4): people painted over the global segmentation."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rpcnn import ops
from rpcnn.box_convention import EDGES, BoxConvention
from rpcnn.labels import LabelSet
from rpcnn.model.detections import Detections

from .results import ParsingResult

MODES = ("combine", "parsing", "semseg")


def combine(
    detections: Detections,
    image_size: tuple[int, int],
    label_set: LabelSet,
    *,
    min_score: float,
    semantic_gate: float,
    instance_semantic_weight: float,
    semantic_mode: str,
    boxes: BoxConvention = EDGES,
    stretch: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> ParsingResult:
    """People, one label map and one instance map at the image's own size (height, width), best person first.

    Each person's map is the arg-max of its probabilities over its box; where that is not background it is taken again
    with `instance_semantic_weight` times the global probabilities added (released code). The label map starts from the
    global arg-max where its probability exceeds `semantic_gate` (released code: 0.7) and from background elsewhere;
    people whose score reaches `min_score` are painted over it, the best last. Instance id i + 1 is person i of the
    result: 1 is the best.

    semantic_mode: the rows of Table 6: "combine"; "parsing" paints people over background; "semseg" takes the global
    arg-max alone, without the gate. Without a global segmentation "combine" is "parsing".

    boxes: what the model's corners are. stretch: changes maps [n, K, h, w] and the windows [n, 4] that they are pasted
    to; without it each map is sampled over its box, pixel center by pixel center.

    Raises ValueError for an unknown mode, and for "semseg" without a global segmentation.
    """
    if semantic_mode not in MODES:
        raise ValueError(f"combine: semantic_mode must be one of {', '.join(MODES)}, got {semantic_mode!r}")
    label_probs = detections.label_probs
    if semantic_mode == "semseg" and label_probs is None:
        raise ValueError("combine: semantic_mode 'semseg' needs the global segmentation of a model with GSE-FPN")
    height, width = image_size
    order = detections.scores.argsort(descending=True, stable=True)
    scores = detections.scores[order]
    # Network pixels to image pixels, each axis by its own ratio: both sizes were rounded when the image was resized.
    ratio_y, ratio_x = (side / seen for side, seen in zip(image_size, detections.image_size, strict=True))
    corners = boxes.resize(detections.boxes[order], detections.image_size, image_size)
    person_probs, windows = detections.person_probs[order], corners
    if stretch:
        person_probs, windows = stretch(person_probs, windows)
    covered = None
    if label_probs is not None:  # the stride-4 map covers whole cells: up to 3 pixels more than the network saw
        rows, columns = detections.label_probs_size or (4 * label_probs.shape[1], 4 * label_probs.shape[2])
        covered = max(rows * ratio_y, height), max(columns * ratio_x, width)  # 47 * (768 / 47) < 768 in floats
    label_map, instance_map, person_maps = ops.paste_parsing(
        person_probs,
        windows,
        (height, width),
        scores >= min_score,
        semantic=label_probs,
        semantic_size=covered,
        semantic_weight=instance_semantic_weight,
        semantic_gate={"combine": semantic_gate, "parsing": math.inf, "semseg": -math.inf}[semantic_mode],
        paint_labels=semantic_mode != "semseg",
    )
    iou_scores = torch.ones_like(scores) if detections.iou_scores is None else detections.iou_scores[order]
    return ParsingResult(
        boxes=corners,
        box_scores=detections.box_scores[order],
        iou_scores=iou_scores,
        scores=scores,
        person_maps=person_maps,
        label_map=label_map,
        instance_map=instance_map.to(torch.uint8 if len(corners) < 256 else torch.uint16),
        label_set=label_set,
    )
