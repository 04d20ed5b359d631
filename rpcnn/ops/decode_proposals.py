"""Decodes the best anchors of all levels and images to proposals (Sec. 3.2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._arguments import as_int, as_list, as_size, check, check_tensor, promote
from ._examples import Example, image_size, people
from ._library import compiled, register

MOST_LEVELS = 8

# Limit of dw and dh: a box grows by a factor of at most 1000/16. Larger values come from a diverging regressor.
MAX_LOG_SCALE = math.log(1000 / 16)


def decode_proposals(
    deltas: Sequence[Tensor],
    best: Sequence[Tensor],
    anchors: Tensor,
    image_sizes: Sequence[Sequence[int]],
    min_size: int = 0,
) -> tuple[Tensor, Tensor]:
    """Decode the chosen anchors of each level and image, clip them to their image, and number their groups for NMS.

    Only the chosen deltas and anchors are read, all levels and images in one launch. Pass what `torch.topk` finds.

    Args:
        deltas: (dx, dy, dw, dh) [N, A_l, 4] of each of 1 to 8 levels: shifts of the center in units of the anchor's
            size, and logarithms of the size ratio, at most log(1000 / 16). float32, float64, float16 or bfloat16.
        best: int64 [N, k_l] of each level, the chosen anchors of each image within the level. One outside 0..A_l - 1 is
            an error on the CPU and gives a box of zeros on a GPU.
        anchors: [A_1 + A_2 + …, 4], (x1, y1, x2, y2) in pixels; float64 if the deltas are, else float32.
        image_sizes: (height, width) in pixels of each of N images.
        min_size: least width and height of a clipped box, 0 or 1: x1 is clamped to 0..width - min_size, x2 to
            min_size..width.

    Returns:
        - Boxes [N, k_1 + k_2 + …, 4] in the dtype of the anchors, level by level in the order of `best`.
        - Their groups int64 [N, k_1 + k_2 + …]: image * levels + level.

        Not differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
        RuntimeError: see `best`.
    """
    op = "decode_proposals"
    deltas, best = as_list(op, "deltas", deltas), as_list(op, "best", best)
    levels = len(deltas)
    check(0 < levels <= MOST_LEVELS, lambda: f"{op}: deltas must hold 1 to {MOST_LEVELS} levels, got {levels}")
    check(len(best) == levels, lambda: f"{op}: best must hold one tensor for each of {levels} levels, got {len(best)}")
    check_tensor(op, "anchors", anchors)
    floats = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    for i, (delta, chosen) in enumerate(zip(deltas, best, strict=True)):
        check_tensor(op, f"deltas[{i}]", delta)
        check_tensor(op, f"best[{i}]", chosen)
        check(
            delta.dim() == 3 and delta.shape[2] == 4 and delta.shape[0] == deltas[0].shape[0],
            lambda: (
                f"{op}: deltas[{i}] must have shape [{deltas[0].shape[0] if i else 'N'}, A, 4], got {list(delta.shape)}"
            ),
        )
        check(
            delta.dtype in floats,
            lambda: f"{op}: deltas[{i}] must be float32, float64, float16 or bfloat16, got {delta.dtype}",
        )
        check(
            chosen.dim() == 2 and chosen.shape[0] == delta.shape[0] and chosen.dtype == torch.int64,
            lambda: f"{op}: best[{i}] must be int64 [{delta.shape[0]}, k], got {chosen.dtype} {list(chosen.shape)}",
        )
        for name, tensor in (("deltas", delta), ("best", chosen)):
            check(
                tensor.device == anchors.device,
                lambda: f"{op}: {name}[{i}] must be on {anchors.device}, as the anchors, got {tensor.device}",
            )
    deltas = promote(deltas)
    total, wide = sum(delta.shape[1] for delta in deltas), _wide(deltas[0])
    check(
        anchors.shape == (total, 4) and anchors.dtype == wide,
        lambda: f"{op}: anchors must be {wide} [{total}, 4], got {anchors.dtype} {list(anchors.shape)}",
    )
    sizes = as_list(op, "image_sizes", image_sizes, "a list of sizes")
    sizes = [as_size(op, f"image_sizes[{i}]", size) for i, size in enumerate(sizes)]
    images = deltas[0].shape[0]
    check(
        len(sizes) == images,
        lambda: f"{op}: image_sizes must hold one size for each of {images} images, got {len(sizes)}",
    )
    min_size = as_int(op, "min_size", min_size)
    check(min_size in (0, 1), lambda: f"{op}: min_size must be 0 or 1, got {min_size}")
    if not compiled(anchors):
        return decode_proposals_reference(deltas, best, anchors, sizes, min_size)
    heights, widths = [h for h, _ in sizes], [w for _, w in sizes]
    detached = [delta.detach() for delta in deltas]
    return torch.ops.rpcnn.decode_proposals(detached, best, anchors.detach(), heights, widths, min_size)


@torch.no_grad()
def decode_proposals_reference(
    deltas: Sequence[Tensor],
    best: Sequence[Tensor],
    anchors: Tensor,
    image_sizes: Sequence[Sequence[int]],
    min_size: int = 0,
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`decode_proposals` in plain PyTorch."""
    boxes, groups, images = [], [], torch.arange(len(deltas[0]), device=anchors.device)[:, None]
    for level, (delta, chosen, anchor) in enumerate(
        zip(deltas, best, anchors.split([delta.shape[1] for delta in deltas]), strict=True)
    ):
        delta = delta.gather(1, chosen[:, :, None].expand(-1, -1, 4)).to(anchors.dtype)
        boxes.append(decode_boxes(delta, anchor[chosen]))
        groups.append((images * len(deltas) + level).expand_as(chosen))
    clipped = torch.cat(boxes, 1)
    for image, (height, width) in zip(clipped, image_sizes, strict=True):
        for side, corners in ((width, image[:, 0::2]), (height, image[:, 1::2])):
            corners[:, 0].clamp_(0, side - min_size)
            corners[:, 1].clamp_(min_size, side)
    return clipped, torch.cat(groups, 1)


def decode_boxes(deltas: Tensor, references: Tensor, weights: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Apply predicted deltas (dx, dy, dw, dh) [..., 4] to reference boxes [..., 4].

    Args:
        weights: what (dx, dy) and (dw, dh) are divided by.
    """
    shift, log_scale = deltas[..., :2] / weights[0], deltas[..., 2:] / weights[1]
    reference_size = references[..., 2:] - references[..., :2]
    center = references[..., :2] + 0.5 * reference_size + shift * reference_size
    half_size = 0.5 * reference_size * torch.exp(log_scale.clamp(max=MAX_LOG_SCALE))
    return torch.cat([center - half_size, center + half_size], dim=-1)


def _wide(deltas: Tensor) -> torch.dtype:
    return torch.float64 if deltas.dtype == torch.float64 else torch.float32


def _fake(deltas, best, anchors, heights, widths, min_size):
    shape = deltas[0].shape[0], sum(chosen.shape[1] for chosen in best)
    return anchors.new_empty(*shape, 4), anchors.new_empty(shape, dtype=torch.int64)


def _example(small: bool) -> Example:
    generator, count = torch.Generator().manual_seed(3), 60 if small else 500
    numbers = [4 * count, count, count // 2]
    deltas = [0.3 * torch.randn(2, n, 4, generator=generator) for n in numbers]
    arguments = {
        "deltas": deltas,
        "best": [delta[..., 0].topk(min(count, delta.shape[1]), 1).indices for delta in deltas],
        "anchors": people(small).repeat(10, 1)[: sum(numbers)],
        "image_sizes": [image_size(small), (100, 150)],
        "min_size": 1,
    }
    return Example(decode_proposals, decode_proposals_reference, arguments, maps=("deltas",), differentiable=False)


register("decode_proposals", fake=_fake, example=_example)
