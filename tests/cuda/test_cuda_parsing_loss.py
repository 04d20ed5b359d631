"""The CUDA kernels of parsing_loss, executed by the emulator."""

import pytest
import torch
from helpers import emulator
from helpers.layouts import LAYOUTS

from rpcnn.ops import parsing_loss_reference


def case(rois=2, classes=20, size=(16, 24), dtype=torch.float32):
    logits = (3 * torch.randn(rois, classes, *size)).to(dtype)
    target = torch.randint(0, classes, (rois, *size), dtype=torch.uint8)
    near = torch.rand(rois, *size) < 0.6
    target[near] = logits.argmax(1).to(torch.uint8)[near]
    target[torch.rand(rois, *size) < 0.1] = 255
    return logits, target


def emulated(logits, target, pool, pool_logits=False, ignore=255, grads=(True, True)):
    """Results and the gradient; `grads`: whether the loss's and the maxima's are given."""
    (rois, classes, height, width), dtype = logits.shape, logits.dtype
    innermost = not logits.is_contiguous()
    wide = emulator.accumulation(dtype)
    loss, valid, miou = torch.empty((), dtype=wide), torch.full((rois,), -1), torch.full((rois,), torch.nan)
    pooled = LAYOUTS["channels_last" if innermost else "contiguous"](
        torch.full((rois, classes, height // pool, width // pool), torch.nan, dtype=dtype)
    )
    log_sum = torch.full((rois, height, width), torch.nan, dtype=wide)
    largest = torch.full_like(pooled, 99, dtype=torch.uint8)
    sizes = (rois, classes, height, width, pool, innermost, pool_logits, ignore)
    emulator.call("parsing_loss", dtype, logits, target, *sizes, loss, valid, miou, pooled, log_sum, largest)
    grad = torch.full_like(logits, torch.nan)
    given = gradients(pooled)
    given = [g if used else None for g, used in zip(given, grads, strict=True)]
    emulator.call("parsing_loss_backward", dtype, *given, logits, target, *sizes, log_sum, largest, grad)
    return loss, valid, miou, pooled, grad


def gradients(pooled):
    """Of the loss and the maxima, the latter in their memory format."""
    wide = emulator.accumulation(pooled.dtype)
    ramp = torch.linspace(-1, 1, pooled.numel(), dtype=pooled.dtype).view(pooled.shape)
    return torch.tensor(0.3, dtype=wide), torch.empty_like(pooled).copy_(ramp)


def expected(logits, target, pool, pool_logits=False, ignore=255, grads=(True, True)):
    logits = logits.detach().requires_grad_()
    loss, valid, miou, pooled = parsing_loss_reference(logits, target, pool, pool_logits, ignore)
    pairs = [
        pair for pair, used in zip(zip((loss, pooled), gradients(pooled), strict=True), grads, strict=True) if used
    ]
    grad = torch.autograd.grad([out for out, _ in pairs], logits, [g for _, g in pairs])[0]
    return loss.detach(), valid, miou, pooled.detach(), grad


def assert_same(got, want, dtype=torch.float32, **options):
    for number, (g, w) in enumerate(zip(got, want, strict=True)):
        tolerance = emulator.tolerance(emulator.accumulation(dtype) if number == 0 else dtype)
        torch.testing.assert_close(g, w, **({"rtol": 0, "atol": 0} if number in (1, 2) else tolerance), **options)


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("pool_logits", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_forward_and_backward(layout, pool_logits, order):
    emulator.schedule(order)
    logits, target = case()
    assert_same(emulated(LAYOUTS[layout](logits), target, 4, pool_logits), expected(logits, target, 4, pool_logits))


@pytest.mark.parametrize(
    ("rois", "classes", "size", "pool"),
    [
        (0, 3, (4, 4), 2),
        (1, 1, (1, 2), 1),
        (3, 2, (2, 6), 2),
        (1, 59, (9, 15), 3),
        (2, 24, (4, 140), 4),  # a second tile, of three cells
        (1, 7, (2, 530), 1),
        (1, 256, (16, 48), 16),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
def test_sizes_and_dtypes(dtype, layout, rois, classes, size, pool):
    emulator.schedule(emulator.ORDERS[2])
    logits, target = case(rois, classes, size, dtype)
    assert_same(emulated(LAYOUTS[layout](logits), target, pool), expected(logits, target, pool), dtype)


# Packs of 16 and of 8 bytes, and single classes: by the number of classes, and by where the logits start.
@pytest.mark.parametrize("classes", [24, 20, 6])
@pytest.mark.parametrize("skipped", [0, 1, 2, 4], ids="{}_before".format)
@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
def test_classes_side_by_side(dtype, skipped, classes):
    emulator.schedule(emulator.ORDERS[2])
    logits, target = case(2, classes, (4, 6), dtype)
    storage = torch.full((skipped + logits.numel(),), torch.inf, dtype=dtype)
    shifted = storage[skipped:].view(2, 4, 6, classes).permute(0, 3, 1, 2).copy_(logits)
    assert_same(emulated(shifted, target, 2), expected(logits, target, 2), dtype)


@pytest.mark.parametrize("grads", [(True, False), (False, True)], ids=str)
def test_either_gradient_alone(grads):
    logits, target = case()
    assert_same(emulated(logits, target, 4, grads=grads), expected(logits, target, 4, grads=grads))


@pytest.mark.parametrize("pool_logits", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_equal_pixels_give_the_gradient_to_the_first(layout, pool_logits):
    logits, target = case(1, 8, (8, 8))
    logits = logits[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3).contiguous()
    assert_same(emulated(LAYOUTS[layout](logits), target, 4, pool_logits), expected(logits, target, 4, pool_logits))


@pytest.mark.parametrize("pool_logits", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite(value, layout, pool_logits):
    logits, target = case(2, 8, (8, 8))
    logits[0, 2, 3, 1:3] = value
    logits[1, :, 5, 6] = value
    logits[1, :5, 2, 2] = value
    got = emulated(LAYOUTS[layout](logits), target, 4, pool_logits)
    assert_same(got, expected(logits, target, 4, pool_logits), equal_nan=True)


def test_labels_beyond_the_classes_and_the_ignored_one_do_not_count():
    logits, target = case(classes=5)
    target[0, 0, :3] = torch.tensor([5, 77, 3])
    target[1] = 255
    assert_same(emulated(logits, target, 4, ignore=3), expected(logits, target, 4, ignore=3))
