"""The CUDA kernels of roi_align and multilevel_roi_align, executed by the emulator."""

import pytest
import torch
from helpers import emulator
from helpers.layouts import LAYOUTS

from rpcnn.ops import multilevel_roi_align_reference, roi_align_reference

SCALES = [1 / 4, 1 / 8, 1 / 16]
# inside, across the border, outside, empty, mirrored, tiny, larger than the image
BOXES = [[0, 5, 6, 30, 40], [1, -20, -9, 25, 31], [0, 500, 500, 600, 600], [1, 10, 10, 10, 10], [0, 50, 40, 12, 8]]
BOXES += [[1, 7, 7, 7.5, 9], [0, -100, -100, 300, 300], [1, 0, 0, 96, 64]]


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("ratio", "aligned"), [(2, True), (2, False), (-1, True), (-1, False)])
@pytest.mark.parametrize("levels", [1, 3])
def test_forward_and_backward(levels, ratio, aligned, layout, order, dtype):
    emulator.schedule(order)
    sizes = [(16 >> level, 24 >> level) for level in range(levels)]
    maps = [LAYOUTS[layout](torch.randn(2, 3, *size).to(dtype)) for size in sizes]
    boxes = torch.tensor(BOXES, dtype=emulator.accumulation(dtype))
    bad = torch.tensor([[0, 1, 1, float("nan"), 9], [2, 1, 1, 9, 9], [-1, 1, 1, 9, 9], [0, 1, 1, float("inf"), 9]])
    every, good = torch.cat([boxes, bad.to(boxes)]), len(boxes)
    out = LAYOUTS[layout](torch.full((len(every), 3, 3, 2), torch.nan, dtype=dtype))
    shape = (2, 3, levels, [s[0] for s in sizes], [s[1] for s in sizes], layout == "channels_last")
    rule = (len(every), 3, 2, ratio, aligned)
    emulator.call("roi_align", dtype, *shape, maps, every, *rule, None, out)
    for m in maps:
        m.requires_grad_()
    arguments = ((3, 2), SCALES[:levels], ratio, aligned, 32, 3)
    want = multilevel_roi_align_reference(maps, boxes, *arguments)
    torch.testing.assert_close(out[:good], want.detach(), **emulator.tolerance(dtype))
    assert (out[good:] == 0).all()

    grad = LAYOUTS[layout](torch.randn_like(out))
    grads = [torch.full_like(m, torch.nan) for m in maps]
    emulator.call("roi_align_backward", dtype, *shape, grads, every, *rule, None, grad)
    for got, expected in zip(grads, torch.autograd.grad(want, maps, grad[:good]), strict=True):
        torch.testing.assert_close(got, expected, **emulator.tolerance(dtype))


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("channels", "count"), [(8, 300), (136, 30)])
def test_several_packs_and_blocks_of_channels_and_boxes(channels, count, layout, dtype):
    emulator.schedule(emulator.ORDERS[2])
    feature = LAYOUTS[layout](torch.randn(2, channels, 19, 37).to(dtype))
    corner = torch.rand(count, 2) * torch.tensor([130.0, 60])
    boxes = torch.cat([torch.arange(count)[:, None] % 2, corner, corner + 4 + 20 * torch.rand(count, 2)], 1)
    boxes = boxes.to(emulator.accumulation(dtype))
    out = LAYOUTS[layout](torch.full((count, channels, 2, 3), torch.nan, dtype=dtype))
    shape, rule = (2, channels, 1, [19], [37], layout == "channels_last"), (count, 2, 3, 2, True)
    emulator.call("roi_align", dtype, *shape, [feature], boxes, *rule, None, out)
    exact = feature.to(emulator.accumulation(dtype)).requires_grad_()
    want = multilevel_roi_align_reference([exact], boxes, (2, 3), SCALES[:1], 2, True, 32, 3)
    torch.testing.assert_close(out, want.detach().to(dtype), **emulator.tolerance(dtype))

    grad = LAYOUTS[layout](torch.randn_like(out))
    got = torch.full_like(feature, torch.nan)
    emulator.call("roi_align_backward", dtype, *shape, [got], boxes, *rule, None, grad)
    (expected,) = torch.autograd.grad(want, exact, grad.to(exact.dtype))
    torch.testing.assert_close(got, expected.to(dtype), **emulator.tolerance(dtype))


def compare_with_reference(feature, boxes, size, ratio):
    """Forward and backward on one level of scale 1/4."""
    layout = LAYOUTS["channels_last" if feature.is_contiguous(memory_format=torch.channels_last) else "contiguous"]
    images, channels, *sides = feature.shape
    shape = (images, channels, 1, [sides[0]], [sides[1]], layout is LAYOUTS["channels_last"])
    rule = (len(boxes), *size, ratio, True)
    out = layout(torch.full((len(boxes), channels, *size), torch.nan, dtype=feature.dtype))
    emulator.call("roi_align", feature.dtype, *shape, [feature], boxes, *rule, None, out)
    x = feature.clone().requires_grad_()
    want = multilevel_roi_align_reference([x], boxes, size, SCALES[:1], ratio, True, 32, 3)
    torch.testing.assert_close(out, want.detach(), **emulator.tolerance(feature.dtype))
    grad, got = layout(torch.randn_like(out)), torch.full_like(feature, torch.nan)
    emulator.call("roi_align_backward", feature.dtype, *shape, [got], boxes, *rule, None, grad)
    (expected,) = torch.autograd.grad(want, x, grad)
    torch.testing.assert_close(got, expected, **emulator.tolerance(feature.dtype))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 8), (32, 32), (3, 40)], ids=str)
def test_output_sizes(size, layout):
    emulator.schedule(emulator.ORDERS[2])
    boxes = torch.tensor([[1, 9, 5, 61, 57], [0, -20, 40, 90, 81], [1, 30, 20, 24, 26]], dtype=torch.float32)
    compare_with_reference(LAYOUTS[layout](torch.randn(2, 4, 19, 23)), boxes, size, 2)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("ratio", "size"), [(-1, (3, 2)), (-1, (1, 1)), (40, (3, 2)), (2, (3, 2))], ids=str)
def test_samples_of_any_number_and_distance(ratio, size, dtype, layout):
    emulator.schedule(emulator.ORDERS[0])
    boxes = [[0, -400, -300, 600, 500], [0, 2, 3, 250, 90], [0, -1e6, -1e6, 1e6, 1e6], [0, 9, -1e6, 40, 1e6]]
    compare_with_reference(
        LAYOUTS[layout](torch.randn(1, 4, 9, 70, dtype=dtype)), torch.tensor(boxes).to(dtype), size, ratio
    )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("ratio", [-1, 40])
def test_neighboring_cells_of_more_pixels_than_a_table_holds(ratio, layout):
    emulator.schedule(emulator.ORDERS[0])
    feature, boxes = LAYOUTS[layout](torch.randn(1, 4, 9, 150)), torch.tensor([[0, 0.0, 0, 600, 36]])
    compare_with_reference(feature, boxes, (1, 2), ratio)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_cell_on_the_last_pixel_reads_no_other(layout):
    emulator.schedule(emulator.ORDERS[0])
    feature = LAYOUTS[layout](torch.full((2, 4, 8, 8), torch.nan))
    feature[0, :, 7, 7] = torch.arange(4.0)
    out = LAYOUTS[layout](torch.full((1, 4, 1, 1), torch.nan))
    shape, boxes = (2, 4, 1, [8], [8], layout == "channels_last"), torch.tensor([[0, 28.8, 28.8, 31.6, 31.6]])
    emulator.call("roi_align", torch.float32, *shape, [feature], boxes, 1, 1, 1, 2, False, None, out)
    assert torch.equal(out[0, :, 0, 0], feature[0, :, 7, 7])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("ratio", [1, 3])
def test_a_nan_shows_where_a_sample_reads_it_and_nowhere_else(layout, ratio):
    # With one sample a cell, cells of the first box lie on pixels 2 and 4: 3 and 5 are read with weight 0, 6 is not.
    # Half of the samples of the second box lie outside the map.
    emulator.schedule(emulator.ORDERS[0])
    feature = LAYOUTS[layout](torch.randn(1, 4, 16, 16))
    feature[0, 0, 3, 3] = feature[0, 1, 6, 6] = feature[0, 2, 0, 0] = torch.nan
    boxes = torch.tensor([[0, 6.0, 6, 22, 22], [0, 50.0, 50, 90, 90]])
    out = LAYOUTS[layout](torch.full((2, 4, 2, 2), torch.nan))
    shape = (1, 4, 1, [16], [16], layout == "channels_last")
    emulator.call("roi_align", torch.float32, *shape, [feature], boxes, 2, 2, 2, ratio, True, None, out)
    want = roi_align_reference(feature, boxes, 2, 0.25, ratio, aligned=True)
    assert want[0, 0, 0, 0].isnan() and want[1].isfinite().all()
    torch.testing.assert_close(out, want, equal_nan=True)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_non_finite_gradient_reaches_only_pixels_read(broken, layout):
    emulator.schedule(emulator.ORDERS[0])
    boxes = torch.tensor([[0, 9, 5, 41, 37], [0, 60, 20, 130, 50]], dtype=torch.float32)
    one = LAYOUTS[layout](torch.zeros(2, 4, 3, 3))
    one[0, :, 1, 2] = 1
    rule = ((1, 4, 1, [19], [37], layout == "channels_last"), (2, 3, 3, 2, True))
    reached, got = (LAYOUTS[layout](torch.full((1, 4, 19, 37), torch.nan)) for _ in range(2))
    emulator.call("roi_align_backward", torch.float32, *rule[0], [reached], boxes, *rule[1], None, one)
    grad = LAYOUTS[layout](torch.randn(2, 4, 3, 3))
    grad[0, :, 1, 2] = broken
    emulator.call("roi_align_backward", torch.float32, *rule[0], [got], boxes, *rule[1], None, grad)
    assert 0 < (reached > 0).sum() < 4 * 60
    assert torch.equal(got.isfinite(), reached == 0)
