"""Loss terms of Eq. 1 and their common normalization.

A term is a pair (sum, count): the summed error, with gradient, and the number of samples. Dividing only at the end
takes the mean over the samples of all processes, so that training with several processes equals training with one
process on the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rpcnn.data.sample import Target
from rpcnn.labels import IGNORE
from rpcnn.runtime.distributed import all_reduce_sum, world_size

Terms = dict[str, tuple[Tensor, Tensor]]


def sample_counts(terms: Terms) -> Tensor:
    """The numbers of samples of the terms, float32 [terms]."""
    return torch.stack([count.float() for _, count in terms.values()])


def normalize(
    terms: Terms, weights: dict[str, float], per_process: bool = False, counts: Tensor | None = None
) -> dict[str, Tensor]:
    """Weighted means of the terms, one scalar each, in the same order.

    By default a sum is divided by the mean count over the processes (one all-reduce). DistributedDataParallel averages
    gradients over the processes, which gives the mean over the samples of all processes. A term without samples is 0.

    Args:
        weights: factors by name, 1 if missing.
        per_process: divide by this process's own counts (released code).
        counts: `sample_counts` of this process, if the terms are those of a part of its batch.
    """
    counts = sample_counts(terms) if counts is None else counts
    if not per_process and world_size() > 1:
        counts = all_reduce_sum(counts) / world_size()
    counts = torch.where(counts > 0, counts, 1)
    return {
        name: weights.get(name, 1.0) * total / count
        for (name, (total, _)), count in zip(terms.items(), counts, strict=True)
    }


def label_cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Per-pixel cross entropy of logits [N, K, H, W] and labels [N, H, W]: (sum, number of valid pixels).

    Labels outside 0..K-1, 255 included, are ignored.
    """
    target = target.long()
    known = (target >= 0) & (target < logits.shape[1])
    target = torch.where(known, target, IGNORE)
    return F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum"), known.sum()


def masked_smooth_l1(values: Tensor, targets: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Smooth L1 loss of values [n, 4] and targets [n, 4], summed over the rows where mask [n] is true."""
    return torch.where(mask[:, None], F.smooth_l1_loss(values, targets, beta=beta, reduction="none"), 0).sum()


def semantic_target(targets: list[Target], size: tuple[int, int], padding_label: int = IGNORE) -> Tensor:
    """Target labels uint8 [N, H / 4, W / 4] of the global segmentation of a batch padded to `size` = (H, W).

    Each stride-4 cell has the label of its top left pixel; cells of the padding have `padding_label`.
    """
    height, width = size
    labels = targets[0]["label_map"].new_full((len(targets), height // 4, width // 4), padding_label)
    for i, target in enumerate(targets):
        cells = target["label_map"][::4, ::4]
        labels[i, : cells.shape[0], : cells.shape[1]] = cells
    return labels


def squared_error(predicted: Tensor, iou: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of predicted [R] and true mIoU [R] over the RoIs where known [R] is true: (sum, count)."""
    error = (predicted.float() - iou) ** 2
    return torch.where(known, error, 0).sum(), known.sum()
