"""What training reads from parsing logits, in one pass: cross entropy, mIoU and the pooled map for PRSN (Sec. 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import as_flag, as_int, check, check_maps, check_tensor
from ._examples import Example, parsing_logits
from ._library import compiled, dense_layout, refuse_forward_ad, register
from .parsing_miou import parsing_miou_reference

MOST_CLASSES, MOST_PIXELS = 256, 16  # labels and places within a cell are bytes


def parsing_loss(
    logits: Tensor, target: Tensor, pool: int, pool_logits: bool = False, ignore_index: int = 255
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the cross entropy and the mIoU of each parsing map, and max-pool its probabilities.

    The logits are read once, and once more for the gradient, which is computed for both losses at once. Pixels whose
    target is ignore_index or not below K are ignored; they are pooled all the same.

    Args:
        logits: float32, float64, float16 or bfloat16 [R, K, H, W] with 1 to 256 classes, of any memory format.
        target: uint8 labels [R, H, W].
        pool: side of a pooling cell in pixels, 1 to 16; divides H and W.
        pool_logits: pool the logits instead of their softmax.
        ignore_index: target label to ignore.

    Returns:
        - The cross entropy summed over the valid pixels, a scalar in float32 (float64 for float64 logits).
        - The number of valid pixels of each RoI, int64 [R].
        - The mIoU of each RoI as :func:`parsing_miou` computes it, float32 [R]. Not differentiable.
        - The maximum over each pool × pool cell, [R, K, H / pool, W / pool] in the logits' dtype and memory format. Its
          gradient goes to the first largest pixel of the cell, to the last NaN if there is one.

        Once differentiable.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
        NotImplementedError: forward-mode differentiation, double backward.
    """
    op = "parsing_loss"
    check_maps(op, "logits", logits)
    check_tensor(op, "target", target)
    pool, ignore_index = as_int(op, "pool", pool), as_int(op, "ignore_index", ignore_index)
    pool_logits = as_flag(op, "pool_logits", pool_logits)
    rois, classes, height, width = logits.shape
    check(0 < classes <= MOST_CLASSES, lambda: f"{op}: classes must be 1 to {MOST_CLASSES}, got {classes}")
    check(target.dtype == torch.uint8, lambda: f"{op}: target must be uint8, got {target.dtype}")
    check(
        target.shape == (rois, height, width) and target.device == logits.device,
        lambda: (
            f"{op}: target must be [{rois}, {height}, {width}] on {logits.device}, "
            f"got {list(target.shape)} on {target.device}"
        ),
    )
    check(0 < pool <= MOST_PIXELS, lambda: f"{op}: pool must be 1 to {MOST_PIXELS}, got {pool}")
    check(
        min(height, width) > 0 and height % pool == 0 and width % pool == 0,
        lambda: f"{op}: pool must divide the logits' height and width, got {pool} for {height} x {width}",
    )
    if not compiled(logits):
        return parsing_loss_reference(logits, target, pool, pool_logits, ignore_index)
    refuse_forward_ad(op, logits)
    return torch.ops.rpcnn.parsing_loss(logits, target, pool, pool_logits, ignore_index)[:4]


def parsing_loss_reference(
    logits: Tensor, target: Tensor, pool: int, pool_logits: bool = False, ignore_index: int = 255
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The definition of :func:`parsing_loss` in plain PyTorch; float16 and bfloat16 are computed in float32."""
    wide = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    labels = target.long()
    valid = (labels != ignore_index) & (labels < logits.shape[1])
    cross_entropy = F.cross_entropy(wide, torch.where(valid, labels, -1), ignore_index=-1, reduction="sum")
    miou = parsing_miou_reference(logits, target, ignore_index=ignore_index)
    pooled = F.max_pool2d(wide if pool_logits else wide.softmax(1), pool).to(logits.dtype)
    return cross_entropy, valid.flatten(1).sum(1), miou, pooled


def _fake(logits, target, pool, pool_logits, ignore_index):
    rois, classes, height, width = logits.shape
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    cells = logits.new_empty(rois, classes, height // pool, width // pool)
    pooled = torch.empty_like(cells, memory_format=dense_layout(logits))
    return (
        logits.new_empty((), dtype=wide),
        logits.new_empty(rois, dtype=torch.int64),
        logits.new_empty(rois, dtype=torch.float32),
        pooled,
        logits.new_empty(rois, height, width, dtype=wide),
        torch.empty_like(pooled, dtype=torch.uint8),
    )


def _fake_backward(grad_loss, grad_pooled, logits, target, log_sum, largest, pool, pool_logits, ignore_index):
    return torch.empty_like(logits, memory_format=dense_layout(logits))


def _setup_context(ctx, inputs, output):
    logits, target, *ctx.options = inputs
    _, valid, miou, _, log_sum, largest = output
    ctx.mark_non_differentiable(valid, miou, log_sum, largest)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, target, log_sum, largest)


def _backward(ctx, grad_loss, grad_valid, grad_miou, grad_pooled, *_):
    if grad_loss is None and grad_pooled is None:
        return (None,) * 5
    grad = torch.ops.rpcnn.parsing_loss_backward(grad_loss, grad_pooled, *ctx.saved_tensors, *ctx.options)
    return grad, None, None, None, None


def _double_backward(ctx, grad):
    raise NotImplementedError("parsing_loss: double backward is not supported")


def _example(small: bool) -> Example:
    logits = parsing_logits(small)
    target = parsing_logits(small).roll(1, 0).argmax(1).to(torch.uint8)
    target[:, torch.arange(target.shape[1]) % 64 > 0] = 255  # so that the gradient of the squared loss fits in float16
    arguments = {"logits": logits, "target": target, "pool": 4, "ignore_index": 255}
    return Example(parsing_loss, parsing_loss_reference, arguments, maps=("logits",))


register("parsing_loss", fake=_fake, setup_context=_setup_context, backward=_backward, example=_example)
register("parsing_loss_backward", fake=_fake_backward, backward=_double_backward)
