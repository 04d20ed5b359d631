"""From detections to maps of the whole image (Sec. 3.5, Fig. 4): people painted over the global segmentation."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rpcnn.labels import LabelSet

from .detections import Detections

if TYPE_CHECKING:
    from rpcnn.results import ParsingResult

MODES = ("combine", "parsing", "semseg")

# Class probabilities at full resolution exist for this many numbers at a time (32 MB), whatever the image's size.
STRIP_NUMBERS = 1 << 23


def combine(
    detections: Detections,
    image_size: tuple[int, int],
    label_set: LabelSet,
    *,
    score_threshold: float = 0.3,
    semantic_gate: float = 0.7,
    instance_semantic_weight: float = 0.2,
    semantic_mode: str = "combine",
) -> "ParsingResult":
    """People, one label map and one instance map at the image's own size (height, width), best person first.

    Each person's map is the arg-max of its probabilities over its box; where that is not background it is taken again
    with `instance_semantic_weight` times the global probabilities added (released code). The label map starts from the
    global arg-max where its probability exceeds `semantic_gate` (released code: 0.7) and from background elsewhere;
    people whose score reaches `score_threshold` (released code: 0.3 CIHP, 0.05 MHP-v2) are painted over it, the best
    last. Instance id i + 1 is person i of the result: 1 is the best.

    semantic_mode: the rows of Table 6: "combine"; "parsing" paints people over background; "semseg" takes the global
    arg-max alone, without the gate. Without a global segmentation "combine" is "parsing".

    Raises ValueError for an unknown mode, and for "semseg" without a global segmentation.
    """
    from rpcnn.results import ParsingResult

    if semantic_mode not in MODES:
        raise ValueError(f"combine: semantic_mode must be one of {', '.join(MODES)}, got {semantic_mode!r}")
    semantic = detections.semantic
    if semantic_mode == "semseg" and semantic is None:
        raise ValueError("combine: semantic_mode 'semseg' needs the global segmentation of a model with GSE-FPN")
    height, width = image_size
    device = detections.boxes.device
    order = detections.scores.argsort(descending=True, stable=True)
    scores = detections.scores[order]
    painted = (scores >= score_threshold).tolist()
    # Network pixels to image pixels, each axis by its own ratio: both sizes were rounded when the image was resized.
    seen_height, seen_width = detections.image_size
    ratio_x, ratio_y = width / seen_width, height / seen_height
    boxes = detections.boxes[order] * detections.boxes.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])

    labels = torch.zeros(height, width, dtype=torch.uint8, device=device)
    if semantic is not None and semantic_mode != "parsing":
        gate = semantic_gate if semantic_mode == "combine" else -math.inf
        for rows in strips(0, height, width * len(semantic)):
            confidence, label = semantic_window(semantic, detections, image_size, rows, (0, width)).max(dim=0)
            labels[slice(*rows)] = torch.where(confidence > gate, label, 0).to(torch.uint8)

    people = torch.zeros(len(boxes), height, width, dtype=torch.uint8, device=device)
    # uint16 tensors know few operations: count in int32, and convert where 255 people are not enough.
    instances = torch.zeros(height, width, dtype=torch.int32, device=device)
    people_in_order = list(zip(boxes.tolist(), order.tolist(), painted, strict=True))
    for i, (box, index, visible) in reversed(list(enumerate(people_in_order))):  # the best comes last and wins
        probabilities = detections.probabilities[index]
        columns, (top, bottom) = pixels_inside(box[0], box[2], width), pixels_inside(box[1], box[3], height)
        if columns[0] >= columns[1]:
            continue
        for rows in strips(top, bottom, (columns[1] - columns[0]) * len(probabilities)):
            values = person_window(probabilities, box, rows, columns)
            person = values.argmax(dim=0)
            if semantic is not None and instance_semantic_weight:
                values += instance_semantic_weight * semantic_window(semantic, detections, image_size, rows, columns)
                person = torch.where(person > 0, values.argmax(dim=0), 0)
            person = person.to(torch.uint8)
            window = (slice(*rows), slice(*columns))
            people[i][window] = person
            if visible:
                instances[window] = torch.where(person > 0, i + 1, instances[window])
                if semantic_mode != "semseg":
                    labels[window] = torch.where(person > 0, person, labels[window])

    iou_scores = torch.ones_like(scores) if detections.iou_scores is None else detections.iou_scores[order]
    return ParsingResult(
        boxes=boxes,
        box_scores=detections.box_scores[order],
        iou_scores=iou_scores,
        scores=scores,
        people=people,
        labels=labels,
        instances=instances.to(torch.uint8 if len(boxes) < 256 else torch.uint16),
        label_set=label_set,
    )


def pixels_inside(low: float, high: float, size: int) -> tuple[int, int]:
    """The pixels [first, last) of 0..size whose centres lie in [low, high)."""
    return max(math.ceil(low - 0.5), 0), min(math.ceil(high - 0.5), size)


def strips(first: int, last: int, numbers_per_row: int):
    """Cuts rows [first, last) into ranges of at most STRIP_NUMBERS numbers each, one row at the least."""
    step = max(STRIP_NUMBERS // numbers_per_row, 1)
    for start in range(first, last, step):
        yield start, min(start + step, last)


def map_coordinates(pixels: tuple[int, int], low: float, high: float, size: int, device) -> Tensor:
    """Where the centres of pixels [first, last) lie on a map of `size` cells over [low, high); cells are at 0, 1, …"""
    centres = torch.arange(*pixels, dtype=torch.float32, device=device) + 0.5
    return (centres - low) * (size / (high - low)) - 0.5


def sample_grid(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bilinear samples [K, len(rows), len(columns)] of maps [K, h, w]; beyond the border, the border's values."""
    for axis, coordinates in ((1, rows), (2, columns)):
        last = maps.shape[axis] - 1
        coordinates = coordinates.clamp(0, last)
        lower = coordinates.floor().long()
        weight = coordinates - lower
        weight = weight[:, None] if axis == 1 else weight
        upper = (lower + 1).clamp(max=last)
        maps = torch.lerp(maps.index_select(axis, lower), maps.index_select(axis, upper), weight)
    return maps


def person_window(probabilities: Tensor, box: list[float], rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """A person's probabilities [K, h, w], spread over its box, in a window of the image: [K, rows, columns]."""
    return sample_grid(
        probabilities,
        map_coordinates(rows, box[1], box[3], probabilities.shape[1], probabilities.device),
        map_coordinates(columns, box[0], box[2], probabilities.shape[2], probabilities.device),
    )


def semantic_window(
    semantic: Tensor,
    detections: Detections,
    image_size: tuple[int, int],
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> Tensor:
    """Global probabilities [K, rows, columns] in a window of the image.

    The stride-4 map covers whole cells: up to 3 pixels more than the image that the network saw.
    """
    coordinates = []
    for axis, pixels in ((0, rows), (1, columns)):
        cells = semantic.shape[1 + axis]
        covered = 4 * cells * image_size[axis] / detections.image_size[axis]
        coordinates.append(map_coordinates(pixels, 0, covered, cells, semantic.device))
    return sample_grid(semantic, *coordinates)
