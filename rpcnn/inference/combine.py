"""From detections to maps of the whole image (Sec. 3.5, Fig. 4): people painted over the global segmentation."""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rpcnn import ops
from rpcnn.labels import LabelSet
from rpcnn.model.boxes import last_pixels, resize_boxes
from rpcnn.model.detections import Detections

if TYPE_CHECKING:
    from .results import ParsingResult

MODES = ("combine", "parsing", "semseg")


def combine(
    detections: Detections,
    image_size: tuple[int, int],
    label_set: LabelSet,
    *,
    score_threshold: float = 0.3,
    semantic_gate: float = 0.7,
    instance_semantic_weight: float = 0.2,
    semantic_mode: str = "combine",
    pasting: str = "exact",
    inclusive_boxes: bool = False,
) -> "ParsingResult":
    """People, one label map and one instance map at the image's own size (height, width), best person first.

    Each person's map is the arg-max of its probabilities over its box; where that is not background it is taken again
    with `instance_semantic_weight` times the global probabilities added (released code). The label map starts from the
    global arg-max where its probability exceeds `semantic_gate` (released code: 0.7) and from background elsewhere;
    people whose score reaches `score_threshold` (released code: 0.3 CIHP, 0.05 MHP-v2) are painted over it, the best
    last. Instance id i + 1 is person i of the result: 1 is the best.

    semantic_mode: the rows of Table 6: "combine"; "parsing" paints people over background; "semseg" takes the global
    arg-max alone, without the gate. Without a global segmentation "combine" is "parsing".

    pasting: "exact" samples each map over its box, pixel centre by pixel centre; "rounded" is the released code's, see
    `enlarge_to_pixels`. inclusive_boxes: the model's; first and last pixels are scaled to the image, not edges.

    Raises ValueError for an unknown mode or pasting, and for "semseg" without a global segmentation.
    """
    from .results import ParsingResult

    if semantic_mode not in MODES:
        raise ValueError(f"combine: semantic_mode must be one of {', '.join(MODES)}, got {semantic_mode!r}")
    if pasting not in ("exact", "rounded"):
        raise ValueError(f"combine: pasting must be 'exact' or 'rounded', got {pasting!r}")
    label_probs = detections.label_probs
    if semantic_mode == "semseg" and label_probs is None:
        raise ValueError("combine: semantic_mode 'semseg' needs the global segmentation of a model with GSE-FPN")
    height, width = image_size
    order = detections.scores.argsort(descending=True, stable=True)
    scores = detections.scores[order]
    # Network pixels to image pixels, each axis by its own ratio: both sizes were rounded when the image was resized.
    ratio_y, ratio_x = (side / seen for side, seen in zip(image_size, detections.image_size, strict=True))
    boxes = resize_boxes(detections.boxes[order], detections.image_size, image_size, inclusive_boxes)
    person_probs, windows = detections.person_probs[order], boxes
    if pasting == "rounded":
        windows = enlarge_to_pixels(boxes, tuple(person_probs.shape[-2:]))
        person_probs = F.pad(person_probs, (1, 1, 1, 1))
    covered = None
    if label_probs is not None:  # the stride-4 map covers whole cells: up to 3 pixels more than the network saw
        rows, columns = detections.label_probs_size or (4 * label_probs.shape[1], 4 * label_probs.shape[2])
        covered = max(rows * ratio_y, height), max(columns * ratio_x, width)  # 47 * (768 / 47) < 768 in floats
    label_map, instance_map, person_maps = ops.paste_parsing(
        person_probs,
        windows,
        (height, width),
        scores >= score_threshold,
        semantic=label_probs,
        semantic_size=covered,
        semantic_weight=instance_semantic_weight,
        semantic_gate={"combine": semantic_gate, "parsing": math.inf, "semseg": -math.inf}[semantic_mode],
        paint_labels=semantic_mode != "semseg",
    )
    iou_scores = torch.ones_like(scores) if detections.iou_scores is None else detections.iou_scores[order]
    return ParsingResult(
        boxes=boxes,
        box_scores=detections.box_scores[order],
        iou_scores=iou_scores,
        scores=scores,
        person_maps=person_maps,
        label_map=label_map,
        instance_map=instance_map.to(torch.uint8 if len(boxes) < 256 else torch.uint16),
        label_set=label_set,
    )


def enlarge_to_pixels(boxes: Tensor, map_size: tuple[int, int]) -> Tensor:
    """Windows [n, 4] of whole pixels over which the released code stretches maps with a border of one cell of zeros.

    Of a box from its first to its last pixel, both sides grow about the centre by (cells + 2) / cells, map_size =
    (rows, columns) cells; the corners are truncated towards zero and their pixels belong to the window, one at least.
    The border takes its share of the window away from the map: people come out up to a cell narrower than their boxes.
    """
    rows, columns = map_size
    first, last = last_pixels(boxes.double()).split(2, dim=1)
    growth = first.new_tensor([(columns + 2) / columns, (rows + 2) / rows])
    centre, half = (first + last) / 2, (last - first) / 2 * growth
    first, last = (centre - half).trunc(), (centre + half).trunc()
    return torch.cat([first, first + (last - first + 1).clamp(min=1)], dim=1).to(boxes.dtype)
