"""The CUDA kernel of parsing_miou, executed by the emulator."""

import pytest
import torch
from helpers import emulator
from helpers.layouts import LAYOUTS

from rpcnn.ops import parsing_miou_reference


def case(rois=3, classes=20, size=(33, 40)):
    logits = torch.randn(rois, classes, *size)
    target = torch.randint(0, classes, (rois, *size))
    near = torch.rand(rois, *size) < 0.6
    target[near] = logits.argmax(1)[near]
    target[torch.rand(rois, *size) < 0.1] = 255
    return logits, target


def described(labels):
    return labels, labels.element_size(), labels.dtype != torch.uint8, list(labels.stride())


def emulated(prediction, target, classes, ignore_index=255):
    n, height, width = target.shape
    out = torch.full((n,), torch.nan)
    sizes = (n, classes, height, width, ignore_index, out)
    if prediction.dim() == 4:
        strides = list(prediction.stride())
        emulator.call("parsing_miou", prediction.dtype, prediction, strides, *described(target), *sizes)
    else:
        emulator.call("parsing_miou_labels", *described(prediction), *described(target), *sizes)
    return out


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference_in_every_layout(layout, order):
    emulator.schedule(order)
    logits, target = case()
    strided = target.transpose(1, 2).contiguous().transpose(1, 2)
    out = emulated(LAYOUTS[layout](logits), strided, 20)
    assert torch.equal(out, parsing_miou_reference(logits, target))


@pytest.mark.parametrize(
    ("rois", "classes", "size"), [(1, 1, (1, 1)), (17, 2, (1, 5)), (2, 59, (20, 21)), (1, 300, (40, 40))]
)
@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
def test_sizes(rois, classes, size, dtype):
    emulator.schedule(emulator.ORDERS[2])
    logits, target = case(rois, classes, size)
    logits = logits.to(dtype)
    assert torch.equal(emulated(logits, target, classes), parsing_miou_reference(logits, target))


# Packs of 16 and of 8 bytes, and single classes: by the number of classes, and by where the logits start.
@pytest.mark.parametrize("classes", [24, 20, 6, 59])
@pytest.mark.parametrize("skipped", [0, 1, 2, 4], ids="{}_before".format)
@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
def test_classes_side_by_side(dtype, skipped, classes):
    emulator.schedule(emulator.ORDERS[2])
    logits, target = case(2, classes, (6, 7))
    logits = logits.to(dtype).permute(0, 2, 3, 1)
    storage = torch.full((skipped + logits.numel(),), torch.inf, dtype=dtype)
    storage[skipped:] = logits.flatten()
    shifted = storage[skipped:].view(logits.shape).permute(0, 3, 1, 2)
    assert torch.equal(emulated(shifted, target, classes), parsing_miou_reference(shifted, target))


@pytest.mark.parametrize("padded", ["column", "row", "roi"])
def test_classes_side_by_side_with_gaps(padded):
    emulator.schedule(emulator.ORDERS[0])
    logits, target = case(2, 8, (6, 8))
    column = 8 + (padded == "column")
    row = 8 * column + (padded == "row")
    roi = 6 * row + (padded == "roi")
    shifted = torch.full((2 * roi,), torch.inf).as_strided(logits.shape, (roi, 1, row, column)).copy_(logits)
    assert torch.equal(emulated(shifted, target, 8), parsing_miou_reference(logits, target))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_every_dtype(dtype):
    logits, target = case()
    target[target == 255] = 100 if dtype == torch.int8 else 255
    labels = logits.argmax(1)
    labels[:, 0] = 99  # outside the classes: wrong
    ignore = int(target.max())
    want = parsing_miou_reference(labels, target, 20, ignore)
    assert torch.equal(emulated(labels.to(dtype), target.to(dtype), 20, ignore), want)


def test_targets_outside_the_classes_are_ignored():
    target = torch.tensor([[[0, 1, -1, 7, 2**40]]])
    assert emulated(torch.tensor([[[0, 1, 0, 1, 2]]]), target, 3).item() == 1


def test_ignore_index_may_be_a_class():
    labels, target = torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]])
    assert emulated(labels, target, 2, 0).item() == 1


def test_nothing_valid_or_no_pixels_scores_zero():
    assert emulated(torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 255), 3).tolist() == [0, 0]
    assert emulated(torch.zeros(2, 3, 0, 4), torch.zeros(2, 0, 4, dtype=torch.int64), 3).tolist() == [0, 0]


def test_ties_and_nan():
    nan = float("nan")
    logits = torch.tensor([[1.0, 0.0, nan, -nan], [1.0, nan, nan, -torch.inf]]).view(1, 2, 1, 4)
    for layout in ("contiguous", "channels_last"):
        given = LAYOUTS[layout](logits)
        assert emulated(given, torch.zeros(1, 1, 4, dtype=torch.int64), 2).item() == 1  # label 0 every time
