"""Draws boxes for a loss: a number of positives and negatives at random (Sec. 4.1)."""

import torch
from torch import Tensor

from ._arguments import as_flag, as_int, check, check_tensor
from ._examples import Example
from ._library import compiled, register
from .match_boxes import BACKGROUND, IGNORED

LAST_KEY = 1.0


def draw_samples(
    matched: Tensor, keys: Tensor, count: int, max_positive: int, negatives: bool = True
) -> tuple[Tensor, Tensor]:
    """Draw at most `count` boxes without replacement, positives first: those with the smallest random keys.

    At most `max_positive` of them are positive; negatives fill the rest, as far as there are enough of them. Who needs
    the same samples again passes the same keys. Nothing waits for the device: results have a fixed size.

    Args:
        matched: int64 [n] as from :func:`match_boxes`: >= 0 for a positive box, -1 for a negative one; others are not
            drawn.
        keys: float32 [n] in [0, 1), as from ``torch.rand``. Equal keys keep input order; others are clamped to 0..1,
            NaN counts as 1.
        count: largest number of samples.
        max_positive: largest number of positives among them.
        negatives: draw negatives, too.

    Returns:
        - Indices of the samples, int64 [min(count, n)], positives and then negatives, each in ascending order of key;
          padded with 0.
        - `matched` of the samples, int64 [min(count, n)]; padded with -2.

        Not differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
    """
    op = "draw_samples"
    check_tensor(op, "matched", matched)
    check_tensor(op, "keys", keys)
    check(
        matched.dim() == 1 and matched.dtype == torch.int64,
        lambda: f"{op}: matched must be int64 [n], got {matched.dtype} {list(matched.shape)}",
    )
    check(
        keys.shape == matched.shape and keys.dtype == torch.float32 and keys.device == matched.device,
        lambda: (
            f"{op}: keys must be float32 [{len(matched)}] on {matched.device}, "
            f"got {keys.dtype} {list(keys.shape)} on {keys.device}"
        ),
    )
    count, max_positive = as_int(op, "count", count), as_int(op, "max_positive", max_positive)
    negatives = as_flag(op, "negatives", negatives)
    check(count >= 0, lambda: f"{op}: count must be >= 0, got {count}")
    check(max_positive >= 0, lambda: f"{op}: max_positive must be >= 0, got {max_positive}")
    if not compiled(matched):
        return draw_samples_reference(matched, keys, count, max_positive, negatives)
    return torch.ops.rpcnn.draw_samples(matched, keys.detach(), count, max_positive, negatives)


@torch.no_grad()
def draw_samples_reference(
    matched: Tensor, keys: Tensor, count: int, max_positive: int, negatives: bool = True
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`draw_samples` in plain PyTorch."""
    keys = keys.nan_to_num(nan=LAST_KEY).clamp(0, LAST_KEY)

    def best(mask, limit):
        """Whether each entry is among the first `limit` of the mask, and its rank."""
        order = torch.where(mask, keys, torch.inf).argsort(stable=True)
        rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        return mask & (rank < limit), rank

    positive, rank = best(matched >= 0, min(count, max_positive))
    drawn = positive.sum()
    negative, negative_rank = best((matched == BACKGROUND) & bool(negatives), count - drawn)
    place = torch.where(positive, rank, torch.where(negative, drawn + negative_rank, len(matched)))
    place, samples = place.sort(stable=True)
    there = (place < len(matched))[:count]
    return torch.where(there, samples[:count], 0), torch.where(there, matched[samples[:count]], IGNORED)


def _fake(matched, keys, count, max_positive, negatives):
    size = torch.sym_min(count, matched.shape[0])
    return matched.new_empty(size), matched.new_empty(size)


def _example(small: bool) -> Example:
    generator, n = torch.Generator().manual_seed(0), 3000 if small else 243_000
    matched = torch.where(torch.rand(n, generator=generator) < 0.01, 3, BACKGROUND)
    matched[::7] = IGNORED
    arguments = {"matched": matched, "keys": torch.rand(n, generator=generator), "count": 256, "max_positive": 128}
    return Example(draw_samples, draw_samples_reference, arguments, differentiable=False, exact=True)


register("draw_samples", fake=_fake, example=_example)
