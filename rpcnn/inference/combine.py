"""From detections to maps of the whole image (Sec. 3.5, Fig. 4): people are painted over the global segmentation."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rpcnn import ops
from rpcnn.box_convention import EDGES, BoxConvention
from rpcnn.labels import LabelSet
from rpcnn.model.detections import Detections

from .person_crops import PersonCrops, joined
from .probabilities import Probabilities
from .results import ParsingResult

MOST_BYTES = 1 << 28
"""Of the maps of people that are made at once."""
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
    keep_probabilities: bool = False,
) -> ParsingResult:
    """Compute person maps, a label map and an instance map at the size of the image, best person first.

    The map of a person is the argmax of its probabilities over its box. Where this is not background, the argmax is
    taken again with `instance_semantic_weight` times the global probabilities added (released code). The label map is
    the argmax of the global probabilities where its probability exceeds `semantic_gate`, else background. People with
    a score >= `min_score` are painted over it, the best last. Person i of the result has instance id i + 1.

    Args:
        image_size: (height, width) of the result in pixels.
        min_score: smallest parsing score of the people that are painted.
        semantic_gate: smallest probability of the global segmentation (released code: 0.7).
        instance_semantic_weight: weight of the global probabilities in the person maps.
        semantic_mode: row of Table 6. "combine" as above; "parsing" paints people over background; "semseg" takes the
            argmax of the global probabilities, without the gate. "combine" without a global segmentation is "parsing".
        boxes: convention of box coordinates.
        stretch: changes the maps [n, K, h, w] and the windows [n, 4] that they are pasted to. By default each map is
            sampled over its box at the pixel centers.
        keep_probabilities: whether the result has them.

    Raises:
        ValueError: unknown mode, or "semseg" without a global segmentation.
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
    ratio_y, ratio_x = (new / old for new, old in zip(image_size, detections.image_size, strict=True))
    corners = boxes.resize(detections.boxes[order], detections.image_size, image_size)
    person_probs, windows = detections.person_probs[order], corners
    if stretch:
        person_probs, windows = stretch(person_probs, windows)
    covered = None
    if label_probs is not None:  # the last cells may extend up to 3 pixels beyond the network's input
        rows, columns = detections.label_probs_size or (4 * label_probs.shape[1], 4 * label_probs.shape[2])
        covered = max(rows * ratio_y, height), max(columns * ratio_x, width)  # rounding: 47 * (768 / 47) < 768
    label_map, instance_map, person_maps = _paste(
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
        probabilities=_kept(person_probs, windows, label_probs, covered) if keep_probabilities else None,
    )


def _paste(
    people: Tensor,
    windows: Tensor,
    size: tuple[int, int],
    painted: Tensor,
    semantic_gate: float,
    paint_labels: bool,
    **semantic: Any,
) -> tuple[Tensor, Tensor, Any]:
    """As ops.paste_parsing; the maps of people are [N, H, W] or `PersonCrops`.

    People whose maps together take more than MOST_BYTES are pasted a few at a time and kept at the size of their
    windows.
    """

    def paste(part: slice, gate: float) -> tuple[Tensor, Tensor, Tensor]:
        some = people[part], windows[part], size, painted[part]
        return ops.paste_parsing(*some, semantic_gate=gate, paint_labels=paint_labels, **semantic)

    step = max(MOST_BYTES // max(size[0] * size[1], 1), 1)
    if len(people) <= step:
        return paste(slice(None), semantic_gate)
    labels, instances, _ = paste(slice(0), semantic_gate)
    crops: list[PersonCrops] = []
    for start in reversed(range(0, len(people), step)):  # the best people last, on top of the others
        part = slice(start, start + step)
        over, numbers, maps = paste(part, math.inf)
        instances = torch.where(numbers > 0, numbers + start, instances)
        labels = torch.where(numbers > 0, over, labels) if paint_labels else labels
        crops.insert(0, PersonCrops.of(maps, windows[part]))
    return labels, instances, joined(crops)


def _kept(people: Tensor, windows: Tensor, whole: Tensor | None, size: tuple[float, float] | None) -> Probabilities:
    """Ordinary tensors: those of inference mode cannot be edited."""
    return Probabilities(people.clone(), windows.clone(), None if whole is None else whole.clone(), size)
