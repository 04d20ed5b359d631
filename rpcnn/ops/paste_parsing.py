"""Combines the parsing maps of all people with the global segmentation into label maps (Sec. 3.5, Fig. 4)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._arguments import as_flag, as_float, as_list, as_size, check, check_floats, check_tensor
from ._examples import Example, image_size, parsing_logits, people, pyramid
from ._library import compiled, register
from .sampling import global_window, map_coordinates, pixels_inside, sample_grid, strips


def paste_parsing(
    probabilities: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    painted: Tensor | None = None,
    *,
    semantic: Tensor | None = None,
    semantic_size: tuple[float, float] | None = None,
    semantic_weight: float = 0.0,
    semantic_gate: float = math.inf,
    paint_labels: bool = True,
    with_people: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Resize each person's class probabilities to its box and paint the labels into the image, the best person on top.

    A pixel is inside a box if its center is. There, a person's label is the arg-max of its bilinearly sampled
    probabilities. If that is not background, it is the arg-max after adding `semantic_weight` times the global
    probabilities. Of equal probabilities the lower class wins; NaN is below every number. Sampling coordinates are
    clamped to the map.

    Args:
        probabilities: float [R, K, h, w], best person first; at most 256 classes, class 0 is the background.
        boxes: float [R, 4], (x1, y1, x2, y2) in image pixels. Boxes that are not finite or contain no pixel center are
            empty.
        image_size: (height, width).
        painted: bool [R]: which people appear in labels and instances; None paints all.
        semantic: float [K, hs, ws]: global probabilities, or None.
        semantic_size: (height, width) in image pixels that `semantic` covers from the top left corner, at least the
            image and finite; None means the image.
        semantic_weight: weight of the global probabilities in a person's label.
        semantic_gate: before people are painted, labels are the global arg-max where its probability exceeds this,
            else 0. math.inf ignores the global map, -math.inf uses it everywhere.
        paint_labels: whether to paint the people into labels.
        with_people: whether to return the map of each person.

    Returns:
        Three maps, not differentiable:

        - labels uint8 [H, W].
        - instances int32 [H, W]: i + 1 where person i is on top, 0 where there is no person.
        - people uint8 [R, H, W]: the labels of each person, which may overlap; [0, H, W] without `with_people`.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or size.
    """
    op = "paste_parsing"
    for name, tensor in (("probabilities", probabilities), ("boxes", boxes)):
        check_floats(op, name, tensor)
    shape = list(probabilities.shape)
    check(len(shape) == 4 and 0 not in shape[1:], lambda: f"{op}: probabilities must be [R, K, h, w], got {shape}")
    people, classes = shape[:2]
    check(classes <= 256, lambda: f"{op}: probabilities must have at most 256 classes, got {classes}")
    check(list(boxes.shape) == [people, 4], lambda: f"{op}: boxes must be [{people}, 4], got {list(boxes.shape)}")
    height, width = as_size(op, "image_size", image_size)
    if painted is None:
        painted = torch.ones(people, dtype=torch.bool, device=boxes.device)
    check_tensor(op, "painted", painted)
    check(
        painted.dtype == torch.bool and list(painted.shape) == [people],
        lambda: f"{op}: painted must be bool [{people}], got {painted.dtype} {list(painted.shape)}",
    )
    sides = [height, width] if semantic_size is None else as_list(op, "semantic_size", semantic_size, "two numbers")
    covered = [as_float(op, "semantic_size", side) for side in sides]
    check(len(covered) == 2, lambda: f"{op}: semantic_size must be two numbers, got {semantic_size!r}")
    if semantic is not None:
        check_floats(op, "semantic", semantic)
        given = list(semantic.shape)
        check(
            len(given) == 3 and given[0] == classes and 0 not in given,
            lambda: f"{op}: semantic must be [{classes}, hs, ws], got {given}",
        )
        check(
            covered[0] >= height and covered[1] >= width,
            lambda: f"{op}: semantic_size must cover the image of {(height, width)}, got {semantic_size}",
        )
        semantic = semantic.detach().float()
    others = {"boxes": boxes, "painted": painted} | ({} if semantic is None else {"semantic": semantic})
    for name, tensor in others.items():
        check(
            tensor.device == probabilities.device,
            lambda: f"{op}: {name} must be on {probabilities.device}, got {tensor.device}",
        )
    semantic_weight = as_float(op, "semantic_weight", semantic_weight)
    semantic_gate = as_float(op, "semantic_gate", semantic_gate, finite=False)
    check(semantic_gate == semantic_gate, lambda: f"{op}: semantic_gate must be a number or infinite, got nan")
    paint_labels, with_people = as_flag(op, "paint_labels", paint_labels), as_flag(op, "with_people", with_people)
    maps = (probabilities.detach().float(), boxes.detach().float(), painted.to(torch.uint8), semantic)
    options = (height, width, semantic_weight, semantic_gate, paint_labels, with_people)
    if torch.compiler.is_compiling():
        size = torch.stack([torch.full((), side, dtype=torch.float64) for side in covered])
        return torch.ops.rpcnn.paste_parsing_traced(*maps, size, *options)
    return _paste(*maps, *covered, *options)


def _paste(probabilities: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The operator, or its reference where it is not compiled."""
    paste: Callable = torch.ops.rpcnn.paste_parsing if compiled(probabilities) else paste_parsing_reference
    return paste(probabilities, *others)


def paste_parsing_reference(
    probabilities: Tensor,
    boxes: Tensor,
    painted: Tensor,
    semantic: Tensor | None,
    semantic_height: float,
    semantic_width: float,
    height: int,
    width: int,
    semantic_weight: float,
    semantic_gate: float,
    paint_labels: bool,
    with_people: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition of :func:`paste_parsing` in plain PyTorch, with the arguments of the operator."""
    device, classes = probabilities.device, probabilities.shape[1]
    covered = (semantic_height, semantic_width)
    labels = torch.zeros(height, width, dtype=torch.uint8, device=device)
    instances = torch.zeros(height, width, dtype=torch.int32, device=device)
    people = torch.zeros(len(boxes) if with_people else 0, height, width, dtype=torch.uint8, device=device)
    if semantic is not None and semantic_gate < math.inf:
        for rows in strips(0, height, width * classes):
            confidence, label = _below_numbers(global_window(semantic, covered, rows, (0, width))).max(dim=0)
            labels[slice(*rows)] = torch.where(confidence > semantic_gate, label, 0).to(torch.uint8)
    order = list(zip(range(len(boxes)), boxes.tolist(), painted.tolist(), strict=True))
    for i, (left, top, right, bottom), visible in reversed(order):  # the best last, on top of the others
        if not all(map(math.isfinite, (left, top, right, bottom))):
            continue
        columns, all_rows = pixels_inside(left, right, width), pixels_inside(top, bottom, height)
        if columns[0] >= columns[1]:
            continue
        for rows in strips(*all_rows, (columns[1] - columns[0]) * classes):
            y = map_coordinates(rows, top, bottom, probabilities.shape[2], device)
            x = map_coordinates(columns, left, right, probabilities.shape[3], device)
            values = sample_grid(probabilities[i], y, x)
            person = _below_numbers(values).argmax(dim=0)
            if semantic is not None and semantic_weight:
                values += semantic_weight * global_window(semantic, covered, rows, columns)
                person = torch.where(person > 0, _below_numbers(values).argmax(dim=0), 0)
            person = person.to(torch.uint8)
            window = (slice(*rows), slice(*columns))
            if with_people:
                people[i][window] = person
            if visible:
                instances[window] = torch.where(person > 0, i + 1, instances[window])
                if paint_labels:
                    labels[window] = torch.where(person > 0, person, labels[window])
    return labels, instances, people


def _below_numbers(values: Tensor) -> Tensor:
    """Put NaN below every number, which torch's max has above."""
    return torch.where(values.isnan(), -math.inf, values)


def _fake(
    probabilities,
    boxes,
    painted,
    semantic,
    semantic_height,
    semantic_width,
    height,
    width,
    semantic_weight,
    semantic_gate,
    paint_labels,
    with_people,
):
    new = lambda *sizes, dtype: probabilities.new_empty(sizes, dtype=dtype)
    return (
        new(height, width, dtype=torch.uint8),
        new(height, width, dtype=torch.int32),
        new(boxes.shape[0] if with_people else 0, height, width, dtype=torch.uint8),
    )


@torch.library.custom_op("rpcnn::paste_parsing_traced", mutates_args=())
def _traced(
    probabilities: Tensor,
    boxes: Tensor,
    painted: Tensor,
    semantic: Tensor | None,
    semantic_size: Tensor,
    height: int,
    width: int,
    semantic_weight: float,
    semantic_gate: float,
    paint_labels: bool,
    with_people: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator for torch.compile: a size that is a float of the schema would be compiled into the graph."""
    arguments = (probabilities, boxes, painted, semantic, *semantic_size.tolist(), height, width)
    return _paste(*arguments, semantic_weight, semantic_gate, paint_labels, with_people)


@_traced.register_fake
def _(probabilities, boxes, painted, semantic, semantic_size, *options):
    return _fake(probabilities, boxes, painted, semantic, None, None, *options)


def _example(small: bool) -> Example:
    probabilities, size = parsing_logits(small).softmax(1), image_size(small)
    arguments = {
        "probabilities": probabilities,
        "boxes": people(small)[: len(probabilities)],
        "image_size": size,
        "painted": torch.ones(len(probabilities), dtype=torch.bool),
        "semantic": pyramid(small)[0][0, :20].softmax(0),
        "semantic_size": tuple(map(float, size)),
        "semantic_weight": 0.2,
        "semantic_gate": 0.7,
    }

    def reference(probabilities, boxes, image_size, painted, semantic, semantic_size, semantic_weight, semantic_gate):
        maps = (probabilities.float(), boxes, painted.to(torch.uint8), semantic)
        options = (*semantic_size, *image_size, semantic_weight, semantic_gate, True, True)
        return paste_parsing_reference(*maps, *options)

    return Example(paste_parsing, reference, arguments, maps=("probabilities",), differentiable=False, exact=True)


register("paste_parsing", fake=_fake, example=_example)
