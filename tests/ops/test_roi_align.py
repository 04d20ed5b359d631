import pytest
import torch
import torchvision
from helpers.layouts import LAYOUTS, TOLERANCES, needs_kernels

from rpcnn.ops import roi_align, roi_align_reference


def random_boxes(count, images=2, width=90.0, height=60.0, dtype=torch.float32):
    """Boxes in, across and outside an image of the given size."""
    corner = torch.rand(count, 2, dtype=dtype) * torch.tensor([width, height], dtype=dtype) * 1.3 - 10
    size = torch.rand(count, 2, dtype=dtype) ** 2 * 60
    index = torch.randint(0, images, (count, 1)).to(dtype)
    return torch.cat([index, corner, corner + size], 1)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [2, 1, -1, 0, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_torchvision(layout, sampling_ratio, aligned):
    x = LAYOUTS[layout](torch.randn(2, 5, 31, 45))
    for size, scale, count in [((7, 7), 0.5, 33), ((3, 5), 0.5, 1), ((1, 1), 0.25, 17), ((32, 32), 0.5, 4)]:
        boxes = random_boxes(count)
        out = roi_align(x, boxes, size, scale, sampling_ratio, aligned)
        want = torchvision.ops.roi_align(x, boxes, size, scale, sampling_ratio, aligned)
        torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 64, 257])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (13, 17)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_equals_reference(layout, size, channels):
    x = LAYOUTS[layout](torch.randn(2, channels, *size))
    boxes = random_boxes(9, width=20, height=14)
    for ratio in (2, -1):
        out = roi_align(x, boxes, 7, 1.0, ratio, True)
        torch.testing.assert_close(out, roi_align_reference(x, boxes, 7, 1.0, ratio, True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_half_features_accumulate_in_float(dtype):
    x, boxes = torch.randn(2, 8, 40, 50).to(dtype), random_boxes(20)
    boxes[:, [1, 3]] += 2049.3  # half numbers are two apart here
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    big = torch.zeros(2, 8, 40, 2100, dtype=dtype)
    big[..., 2045:2095] = x
    out = roi_align(big, boxes, 7, 1.0, 2, True)
    want = roi_align_reference(big.to(wide), boxes, 7, 1.0, 2, True)
    assert out.dtype == dtype
    tolerance = dict(rtol=1e-4, atol=1e-4) if dtype == torch.float32 else TOLERANCES[dtype]
    torch.testing.assert_close(out, want.to(dtype), **tolerance)


def test_keeps_the_layout_of_the_input():
    x = LAYOUTS["channels_last"](torch.randn(2, 8, 20, 20))
    assert roi_align(x, random_boxes(3), 7).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients(layout, aligned):
    x = LAYOUTS[layout](torch.randn(2, 3, 9, 11, dtype=torch.float64)).requires_grad_()
    boxes = random_boxes(5, width=20, height=16, dtype=torch.float64)
    for ratio in (2, -1):
        f = lambda x, ratio=ratio: roi_align(x, boxes, (3, 2), 0.5, ratio, aligned)
        assert torch.autograd.gradcheck(f, x)
        assert torch.autograd.gradgradcheck(f, x)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_equals_torchvisions(layout, dtype):
    x = LAYOUTS[layout](torch.randn(2, 6, 30, 40)).to(dtype).requires_grad_()
    boxes, grad = random_boxes(40), torch.randn(40, 6, 7, 7).to(dtype)
    got = torch.autograd.grad(roi_align(x, boxes, 7, 0.5, 2, True), x, grad)[0]
    y = x.detach().double().requires_grad_()
    out = torchvision.ops.roi_align(y, boxes.double(), 7, 0.5, 2, True)
    want = torch.autograd.grad(out, y, grad.double())[0]
    tolerance = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_same_for_any_thread_count(layout):
    x = LAYOUTS[layout](torch.randn(2, 16, 40, 50)).requires_grad_()
    boxes, results = random_boxes(50), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = roi_align(x, boxes, 7, 0.5, 2, True)
        results.append((out, torch.autograd.grad(out.square().sum(), x)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("ratio", [2, -1])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_gives_zeros(value, ratio):
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    boxes = torch.tensor([[0, 1, 1, 5, 5], [0, 1, value, 5, 5], [0, 1, 1, value, 5]])
    out = roi_align(x, boxes, 2, 1.0, ratio)
    assert out[0].abs().sum() > 0 and (out[1:] == 0).all()
    grad = torch.autograd.grad(out.sum(), x)[0]
    assert grad.isfinite().all()


def test_a_giant_box_is_quick_and_right():
    x = torch.ones(1, 1, 50, 50)
    # 7 cells of 1e9 / 7 samples each way; cell 0 covers the map: about 50.5 of its 1.43e8 samples an axis are inside.
    out = roi_align(x, torch.tensor([[0, 0, 0, 1e9, 1e9]]), 7)
    assert 0 <= out[0, 0, 0, 0] < 1e-12 and (out[0, 0, 1:, 1:] == 0).all()
    one_axis = roi_align(x, torch.tensor([[0, 0.0, 0.0, 49.0, 1e6]]), (1000, 1))
    # cell 0 holds 1000 samples, of which those at 0.5, 1.5, …, 49.5 lie inside: 50 of 1000.
    assert one_axis[0, 0, 0, 0].item() == pytest.approx(0.05, rel=1e-5)
    assert roi_align(x, torch.tensor([[0, -3e38, -3e38, 3e38, 3e38]]), 2).isfinite().all()


def test_a_negative_box_follows_torchvision():
    x, boxes = torch.randn(1, 2, 20, 20), torch.tensor([[0, 15.0, 15.0, 4.0, 6.0]])
    for ratio in (2, -1):
        want = torchvision.ops.roi_align(x, boxes, 3, 1.0, ratio, True)
        torch.testing.assert_close(roi_align(x, boxes, 3, 1.0, ratio, True), want, rtol=1e-4, atol=1e-4)


def test_a_constant_map_gives_the_constant_inside():
    out = roi_align(torch.full((1, 2, 20, 20), 3.0), torch.tensor([[0, 2.0, 3.0, 11.0, 15.0]]), 7, 1.0, 2, True)
    torch.testing.assert_close(out, torch.full_like(out, 3.0))


def test_boxes_as_a_list():
    x, boxes = torch.randn(2, 3, 20, 20), random_boxes(6)
    boxes = boxes[boxes[:, 0].argsort(stable=True)]
    listed = [boxes[boxes[:, 0] == n, 1:] for n in range(2)]
    assert torch.equal(roi_align(x, listed, 5), roi_align(x, boxes, 5))


def test_empty_inputs():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    out = roi_align(x, torch.zeros(0, 5), 7)
    assert out.shape == (0, 3, 7, 7)
    assert (torch.autograd.grad(out.sum(), x)[0] == 0).all()
    assert roi_align(torch.zeros(0, 3, 8, 8), torch.zeros(0, 5), 7).shape == (0, 3, 7, 7)
    assert roi_align(torch.zeros(1, 0, 8, 8), torch.zeros(4, 5), 7).shape == (4, 0, 7, 7)


def test_autocast_leaves_the_maps_dtype():
    x, boxes = torch.randn(1, 3, 8, 8).bfloat16(), random_boxes(2, images=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert roi_align(x, boxes, 2).dtype == torch.bfloat16
        assert roi_align(x.float(), boxes, 2).dtype == torch.float32


@needs_kernels
def test_opcheck_of_the_second_derivative():
    boxes, grad = random_boxes(4), torch.randn(4, 3, 3, 2, requires_grad=True)
    torch.library.opcheck(torch.ops.rpcnn.roi_align_backward, (grad, boxes, 0.5, 2, 8, 9, 2, True, True))


@needs_kernels
def test_forward_mode_is_refused():
    x, boxes = torch.randn(2, 3, 8, 9), random_boxes(4)
    with pytest.raises(NotImplementedError, match="roi_align"):
        torch.func.jvp(lambda x: roi_align(x, boxes, 3), (x,), (x,))


@pytest.mark.parametrize("align", [roi_align, roi_align_reference])
@pytest.mark.parametrize(("dtype", "exact"), [(torch.bfloat16, 257), (torch.float16, 2049)])
def test_boxes_in_half_precision_are_of_the_image_that_they_name(align, dtype, exact):
    maps = torch.arange(exact + 3.0).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    box = torch.tensor([[1.0, 1, 3, 3]], dtype=dtype)
    boxes = [box if n > exact - 3 else box[:0] for n in range(len(maps))]
    assert align(maps, boxes, 1)[:, 0, 0, 0].tolist() == list(range(exact - 2, len(maps)))
    rows = torch.cat([torch.tensor([[exact - 1.0]], dtype=dtype), box], 1)
    assert align(maps[:exact], rows, 1).item() == exact - 1
    with pytest.raises(ValueError, match=f"where there are more than {exact} images, got {dtype} for {exact + 3}"):
        align(maps, rows, 1)


@pytest.mark.parametrize("align", [roi_align, roi_align_reference])
@pytest.mark.parametrize("box", [[0, 0, 2.0**31, 2.0**31], [-1e20, -1e20, 1e20, 1e20], [0, 0, 3e38, 3e38]])
@pytest.mark.parametrize("ratio", [-1, 2, 1024])
def test_a_box_of_any_size_takes_bounded_work(align, box, ratio):
    maps = torch.rand(1, 2, 5, 6) + 1
    out = align(maps, torch.tensor([[0, *box]]), 7, 1.0, ratio, True)
    torch.testing.assert_close(out, torch.zeros_like(out), rtol=0, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_box_over_many_pixels_reads_the_planes_one_by_one(dtype):
    wide = torch.rand(1, 3, 2, 2**23 + 64).to(dtype)  # 2^24 pixels is the largest tile
    boxes = torch.tensor([[0, 5.0, 0, 2.0**23 + 60, 2], [0, 2.0**22, 0, 2.0**22 + 9, 2]], dtype=torch.float64)
    got = roi_align(wide, boxes, (2, 3), 1.0, 2, True)
    torch.testing.assert_close(got, roi_align_reference(wide, boxes, (2, 3), 1.0, 2, True))


@pytest.mark.slow
@needs_kernels
def test_a_row_of_more_than_2_to_the_28_pixels_is_read_to_its_end():
    row = torch.zeros(1, 1, 1, 2**28 + 64, dtype=torch.bfloat16)  # 0.5 GB
    row[..., -32:] = 3
    boxes = torch.tensor([[0, 0.0, 0, 2.0**28 + 64, 1], [0, 2.0**28 + 40, 0, 2.0**28 + 60, 1]], dtype=torch.float64)
    assert roi_align(row, boxes, (1, 2), 1.0, 1, True).flatten().tolist() == [0, 0, 3, 3]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_shows_where_it_is_read_and_nowhere_else(layout, value):
    maps = LAYOUTS[layout](torch.randn(1, 9, 8, 8))
    maps[0, 0, 3, 3] = maps[0, 1, 6, 6] = maps[0, 2, 0, 0] = value
    # With one sample a cell, cells lie on pixels 2 and 4: pixel 3 is read with weight 0, as in torchvision, 6 is not.
    boxes = torch.tensor([[0, 1.5, 1.5, 5.5, 5.5], [0, 6.0, 6, 16, 16], [0, 50, 50, 60, 60]])
    got, want = (align(maps, boxes, 2, 1.0, 1, True) for align in (roi_align, roi_align_reference))
    # torchvision multiplies pixel (0, 0) by 0 for a sample outside the map, on the CPU only.
    theirs = torchvision.ops.roi_align(torch.where(maps[:, :, :1, :1].isfinite(), maps, 0), boxes, 2, 1.0, 1, True)
    assert torch.equal(got.isfinite(), theirs.isfinite()) and torch.equal(want.isfinite(), theirs.isfinite())
    assert not got[0, 0, 0, 0].isfinite() and got[0, 1:].isfinite().all() and got[2].isfinite().all()


BAD_INDICES = [-1.0, 2.0, 1e6, 0.5, float("nan"), float("inf")]


@pytest.mark.parametrize("index", BAD_INDICES)
def test_a_bad_image_index_is_named(index):
    boxes = torch.tensor([[0, 1, 1, 5, 5], [index, 1, 1, 5, 5]])
    with pytest.raises(ValueError, match=r"roi_align: boxes\[1, 0\] must be an image index in 0..1"):
        roi_align(torch.zeros(2, 3, 8, 8), boxes, 2)


@needs_kernels
@pytest.mark.parametrize("index", BAD_INDICES)
def test_the_raw_operator_names_a_bad_image_index(index):
    boxes = torch.tensor([[0, 1, 1, 5, 5], [index, 1, 1, 5, 5]])
    with pytest.raises(RuntimeError, match=r"boxes\[1, 0\]"):
        torch.ops.rpcnn.roi_align(torch.zeros(2, 3, 8, 8), boxes, 1.0, 2, 2, 2, True)


@pytest.mark.parametrize(
    ("x", "boxes", "size", "message"),
    [
        (torch.zeros(1, 1, 2, 3, 4), torch.zeros(1, 5), 2, r"input must have shape \[N, C, H, W\]"),
        (torch.zeros(3, 8, 8), torch.zeros(1, 5), 2, r"input must have shape \[N, C, H, W\], got \[3, 8, 8\]"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 4), 2, r"boxes must have shape \[R, 5\].*got \[1, 4\]"),
        (torch.zeros(1, 3, 8, 8), [torch.zeros(1, 4)] * 2, 2, "got 2 for 1 images"),
        (torch.zeros(1, 3, 8, 8), [torch.zeros(1, 3)], 2, r"boxes\[0\] must have shape \[R, 4\]"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 5, dtype=torch.int64), 2, "boxes must be float32, float64"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 5), 0, "output_size must be one or two positive integers, got 0"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 5, device="meta"), 2, "boxes must be on cpu, got meta"),
    ],
)
def test_bad_input_is_named(x, boxes, size, message):
    with pytest.raises(ValueError, match=message):
        roi_align(x, boxes, size)
