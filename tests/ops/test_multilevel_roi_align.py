import pytest
import torch
import torchvision
from helpers.layouts import LAYOUTS, TOLERANCES

from rpcnn.ops import multilevel_roi_align, multilevel_roi_align_reference, roi_align, roi_levels

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def pyramid(channels=4, images=2, **options):
    return [torch.randn(images, channels, 128 >> level, 160 >> level, **options) for level in range(4)]


def random_boxes(count, images=2, dtype=torch.float32):
    corner = torch.rand(count, 2, dtype=dtype) * torch.tensor([600, 480], dtype=dtype) - 20
    size = torch.rand(count, 2, dtype=dtype) ** 3 * 600
    return torch.cat([torch.randint(0, images, (count, 1)).to(dtype), corner, corner + size], 1)


@pytest.mark.parametrize(("side", "level"), [(1, 0), (111, 0), (112, 1), (223, 1), (224, 2), (448, 3), (5000, 3)])
def test_levels(side, level):
    # canonical level 4 at 224 pixels; the finest of four is number 2. 1e-6 lifts exact powers to the upper side.
    assert roi_levels(torch.tensor([[10.0, 20.0, 10.0 + side, 20.0 + side]]), SCALES).tolist() == [level]


def test_levels_with_the_inclusive_area():
    box = torch.tensor([[0.0, 0.0, 111.0, 111.0]])
    assert roi_levels(box, SCALES).tolist() == [0]
    assert roi_levels(box, SCALES, area_offset=1).tolist() == [1]


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [9, 9, 3, 20], [0, 0, float("inf"), 5], [float("nan")] * 4])
def test_a_box_without_area_goes_to_the_finest_level(box):
    assert roi_levels(torch.tensor([box], dtype=torch.float32), SCALES).tolist() == [0]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_pooling_each_box_from_its_level(layout, aligned):
    features, boxes = [LAYOUTS[layout](f) for f in pyramid()], random_boxes(60)
    out = multilevel_roi_align(features, boxes, 7, SCALES, 2, aligned)
    levels = roi_levels(boxes[:, 1:], SCALES)
    assert len(levels.unique()) == 4
    for r, level in enumerate(levels.tolist()):
        want = roi_align(features[level], boxes[r : r + 1], 7, SCALES[level], 2, aligned)
        torch.testing.assert_close(out[r : r + 1], want, rtol=0, atol=0)


def test_equals_torchvisions_pooler():
    features, boxes = pyramid(), random_boxes(40)
    boxes[:, 1:].clamp_(min=0)
    boxes = boxes[boxes[:, 0].argsort(stable=True)]
    pooler = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    listed = [boxes[boxes[:, 0] == n, 1:] for n in range(2)]
    want = pooler({str(i): f for i, f in enumerate(features)}, listed, [(512, 640)] * 2)
    torch.testing.assert_close(multilevel_roi_align(features, boxes, 7, SCALES), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_backward_equals_the_references(layout):
    features = [LAYOUTS[layout](f).requires_grad_() for f in pyramid()]
    boxes, grad = random_boxes(30), torch.randn(30, 4, 3, 3)
    got = torch.autograd.grad(multilevel_roi_align(features, boxes, 3, SCALES), features, grad)
    want = torch.autograd.grad(multilevel_roi_align_reference(features, boxes, 3, SCALES), features, grad)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gradcheck():
    features = [torch.randn(1, 2, 8 >> i, 10 >> i, dtype=torch.float64).requires_grad_() for i in range(2)]
    boxes = torch.tensor([[0, 2, 3, 20, 25], [0, 0, 0, 30, 31.0]], dtype=torch.float64)
    f = lambda *levels: multilevel_roi_align(
        list(levels), boxes, 2, [1 / 4, 1 / 8], canonical_size=16, canonical_level=2
    )
    assert torch.autograd.gradcheck(f, features)
    assert torch.autograd.gradgradcheck(f, features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half(dtype):
    features, boxes = [f.to(dtype) for f in pyramid()], random_boxes(10)
    want = multilevel_roi_align([f.float() for f in features], boxes, 7, SCALES).to(dtype)
    torch.testing.assert_close(multilevel_roi_align(features, boxes, 7, SCALES), want, **TOLERANCES[dtype])


def test_no_boxes():
    features = [f.requires_grad_() for f in pyramid()]
    out = multilevel_roi_align(features, torch.zeros(0, 5), 7, SCALES)
    assert out.shape == (0, 4, 7, 7)
    assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), features))


@pytest.mark.parametrize(
    ("features", "scales", "message"),
    [
        ([], [], "features must hold at least one level"),
        (pyramid(), SCALES[:3], r"spatial_scales must have one entry per level \(4\), got 3"),
        ([torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 2, 2)], SCALES[:2], r"features\[1\] must be \[1, 2, H, W\]"),
        ([torch.zeros(1, 2, 4, 4)], [0.0], r"spatial_scales\[0\] must be positive"),
    ],
)
def test_bad_input_is_named(features, scales, message):
    with pytest.raises(ValueError, match=message):
        multilevel_roi_align(features, torch.zeros(1, 5), 7, scales)
