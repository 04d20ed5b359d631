"""Loss terms of Eq. 1 and their common normalization.

A term is a pair (sum, count): a sum of errors with gradient and the number of samples it is taken over. Keeping the two
apart until the end lets the mean run over the samples of all processes, so that several processes train on exactly
what one process with the whole batch would.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rpcnn.data.sample import Target
from rpcnn.labels import IGNORE
from rpcnn.runtime.distributed import all_reduce_sum, world_size

Terms = dict[str, tuple[Tensor, Tensor]]


def normalize(terms: Terms, weights: dict[str, float], per_process: bool = False) -> dict[str, Tensor]:
    """Weighted means of the terms, one scalar each, in the same order.

    weights: factor by name, 1 where a name is missing. per_process: divide by this process's own counts, as the
    released code does. Otherwise by the mean count over the processes (one all-reduce): averaged over the processes,
    as DistributedDataParallel averages gradients, that is the sum over all samples divided by their number.
    A term without any sample is 0.
    """
    counts = torch.stack([count.float() for _, count in terms.values()])
    if not per_process and world_size() > 1:
        counts = all_reduce_sum(counts) / world_size()
    counts = torch.where(counts > 0, counts, 1)
    return {
        name: weights.get(name, 1.0) * total / count
        for (name, (total, _)), count in zip(terms.items(), counts, strict=True)
    }


def label_cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Per-pixel cross entropy of logits [N, K, H, W] against labels [N, H, W]: (sum, number of pixels counted).

    Labels outside 0..K-1, 255 among them, are ignored.
    """
    target = target.long()
    known = (target >= 0) & (target < logits.shape[1])
    target = torch.where(known, target, IGNORE)
    return F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum"), known.sum()


def masked_smooth_l1(values: Tensor, wanted: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Summed smooth L1 of values and wanted [n, 4] over the rows of a mask [n]."""
    return torch.where(mask[:, None], F.smooth_l1_loss(values, wanted, beta=beta, reduction="none"), 0).sum()


def semantic_target(targets: list[Target], size: tuple[int, int], padding_label: int = IGNORE) -> Tensor:
    """Labels uint8 [N, H/4, W/4] for the global segmentation of a batch padded to `size` = (H, W).

    Each stride-4 cell takes the label of its top left pixel; cells of the padding take `padding_label`.
    """
    height, width = size
    labels = targets[0]["label_map"].new_full((len(targets), height // 4, width // 4), padding_label)
    for i, target in enumerate(targets):
        cells = target["label_map"][::4, ::4]
        labels[i, : cells.shape[0], : cells.shape[1]] = cells
    return labels


def squared_error(predicted: Tensor, iou: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of predicted [R] against true mIoU [R] over the RoIs known [R]: (sum, number of RoIs counted)."""
    error = (predicted.float() - iou) ** 2
    return torch.where(known, error, 0).sum(), known.sum()
