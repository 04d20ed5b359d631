"""mIoU between predicted and true part labels of each RoI, the target of the re-scoring network (Sec. 3.4)."""

from typing import Any

import torch
from torch import Tensor

from ._arguments import as_int, check, check_floats, check_tensor
from ._examples import Example, parsing_logits
from ._library import compiled, register

MOST_CLASSES = 4096  # the most that the CUDA kernel can count in shared memory


def parsing_miou(
    logits_or_labels: Tensor, target: Tensor, num_classes: int | None = None, ignore_index: int = 255
) -> Tensor:
    """Compute the mean IoU over classes between prediction and target for each RoI.

    The background is a class. Classes in neither map are skipped. Pixels whose target is ignore_index or outside 0..K-1
    are ignored. A RoI without a valid pixel has a mean IoU of 0.

    Args:
        logits_or_labels: logits [N, K, H, W] of any float dtype and memory format, whose arg-max is the prediction (of
            equal logits the lowest class, and NaN is below every number); or integer labels [N, H, W], in which a label
            outside 0..K-1 matches no class.
        target: integer labels [N, H, W].
        num_classes: K, 1 to 4096. Required for labels; for logits, None or the number of channels.
        ignore_index: target label to ignore.

    Returns:
        float32 [N] in 0..1. Not differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
    """
    num_classes = _checked_classes(logits_or_labels, target, num_classes)
    ignore_index = as_int("parsing_miou", "ignore_index", ignore_index)
    if not compiled(logits_or_labels):
        return parsing_miou_reference(logits_or_labels, target, num_classes, ignore_index)
    return torch.ops.rpcnn.parsing_miou(logits_or_labels.detach(), target, num_classes, ignore_index)


def _checked_classes(logits_or_labels: Tensor, target: Tensor, num_classes: Any) -> int:
    """Check all arguments and return K."""
    op, integers = "parsing_miou", (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    for name, tensor in (("logits_or_labels", logits_or_labels), ("target", target)):
        check_tensor(op, name, tensor)
    if num_classes is not None:
        num_classes = as_int(op, "num_classes", num_classes)
    shape = list(logits_or_labels.shape)
    check(target.dim() == 3, lambda: f"{op}: target must have shape [N, H, W], got {list(target.shape)}")
    check(target.dtype in integers, lambda: f"{op}: target must hold integers, got {target.dtype}")
    if logits_or_labels.dim() == 4:
        check_floats(op, "logits_or_labels", logits_or_labels)
        check(
            num_classes in (None, shape[1]),
            lambda: f"{op}: num_classes must be the logits' channels, {shape[1]}, or None, got {num_classes}",
        )
        num_classes = shape[1]
        fits = [shape[0], *shape[2:]] == list(target.shape)
    else:
        check(
            len(shape) == 3,
            lambda: f"{op}: logits_or_labels must be [N, K, H, W] logits or [N, H, W] labels, got {shape}",
        )
        check(
            logits_or_labels.dtype in integers,
            lambda: f"{op}: logits_or_labels must hold integers where it is [N, H, W], got {logits_or_labels.dtype}",
        )
        check(num_classes is not None, lambda: f"{op}: num_classes must be given with labels, got None")
        fits = shape == list(target.shape)
    check(0 < num_classes <= MOST_CLASSES, lambda: f"{op}: classes must be 1 to {MOST_CLASSES}, got {num_classes}")
    check(
        fits, lambda: f"{op}: target must cover the prediction's RoIs and pixels, got {list(target.shape)} for {shape}"
    )
    check(
        target.device == logits_or_labels.device,
        lambda: f"{op}: target must be on {logits_or_labels.device}, got {target.device}",
    )
    return num_classes


@torch.no_grad()
def parsing_miou_reference(
    logits_or_labels: Tensor, target: Tensor, num_classes: int | None = None, ignore_index: int = 255
) -> Tensor:
    """The definition of :func:`parsing_miou` in plain PyTorch."""
    if logits_or_labels.dim() == 4:
        num_classes = logits_or_labels.shape[1]
        prediction = torch.where(logits_or_labels.isnan(), -torch.inf, logits_or_labels).argmax(1)
    else:
        assert num_classes is not None  # labels alone do not say it
        prediction = logits_or_labels.long()
    n, k = len(target), num_classes
    if target.numel() == 0:
        return torch.zeros(n, device=target.device)
    prediction, target = prediction.flatten(1), target.long().flatten(1)
    valid = (target != ignore_index) & (target >= 0) & (target < k)
    prediction = torch.where((prediction >= 0) & (prediction < k), prediction, k)
    rows = torch.arange(n, device=target.device)[:, None].expand_as(target)
    pairs = (rows * k + target) * (k + 1) + prediction
    confusion = torch.bincount(pairs[valid], minlength=n * k * (k + 1)).view(n, k, k + 1).double()
    intersection = confusion[:, :, :k].diagonal(dim1=1, dim2=2)
    union = confusion.sum(2) + confusion[:, :, :k].sum(1) - intersection
    present = union > 0
    iou = torch.where(present, intersection / union.clamp(min=1), 0)
    return (iou.sum(1) / present.sum(1).clamp(min=1)).float()


def _fake(logits_or_labels, target, num_classes, ignore_index):
    return logits_or_labels.new_empty(logits_or_labels.shape[0], dtype=torch.float32)


def _example(small: bool) -> Example:
    logits = parsing_logits(small)
    target = parsing_logits(small).roll(1, 0).argmax(1)
    arguments = {"logits_or_labels": logits, "target": target, "num_classes": logits.shape[1], "ignore_index": 255}
    return Example(parsing_miou, parsing_miou_reference, arguments, maps=("logits_or_labels",), differentiable=False)


register("parsing_miou", fake=_fake, example=_example)
