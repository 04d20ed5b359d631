import pytest
import torch
from helpers.layouts import LAYOUTS, TOLERANCES, needs_kernels

from rpcnn.ops import downsample_add, downsample_add_reference


def maps(channels, sizes, images=2, **options):
    return [torch.randn(images, channels, *size, **options) for size in sizes]


@pytest.mark.parametrize("channels", [1, 3, 64, 257])
@pytest.mark.parametrize(
    "sizes",
    [[(16, 24), (16, 24), (8, 12), (4, 6), (2, 3)], [(7, 5), (4, 3), (13, 1)], [(1, 1), (1, 1), (3, 2)]],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference(channels, sizes, layout):
    feature, *pyramid = (LAYOUTS[layout](m) for m in maps(channels, sizes))
    for out, want in zip(downsample_add(feature, pyramid), downsample_add_reference(feature, pyramid), strict=True):
        torch.testing.assert_close(out, want, **TOLERANCES[torch.float32])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("size", [(4, 6), (8, 12), (3, 5), (8, 5), (1, 1)])
def test_a_nan_shows_in_every_output_in_which_pytorch_shows_it(size, layout):
    (feature, level) = maps(1, [(8, 12), size], images=1)
    for pixel in range(8 * 12):
        poisoned = feature.clone()
        poisoned.view(-1)[pixel] = torch.nan
        (got,), (want,) = (
            f(LAYOUTS[layout](poisoned), [LAYOUTS[layout](level)]) for f in (downsample_add, downsample_add_reference)
        )
        assert torch.equal(got.isnan(), want.isnan())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_an_infinity_in_a_map_that_keeps_its_size_stays_one(layout):
    feature, level = (LAYOUTS[layout](m) for m in maps(3, [(4, 5), (4, 5)]))
    feature[0, 1, 3, 4], feature[1, 0, 0, 0] = torch.inf, -torch.inf
    (got,) = downsample_add(feature, [level])
    torch.testing.assert_close(got, feature + level, rtol=0, atol=0)


def test_an_empty_batch_has_a_gradient_of_zeros():
    feature = torch.zeros(0, 3, 8, 12, requires_grad=True)
    levels = [torch.zeros(0, 3, 4, 6, requires_grad=True), torch.zeros(0, 3, 2, 3, requires_grad=True)]
    sum(out.sum() for out in downsample_add(feature, levels)).backward()
    assert feature.grad.shape == feature.shape and all(level.grad.shape == level.shape for level in levels)


def test_downsampling_averages_the_four_center_pixels():
    """Bilinear interpolation without antialiasing reads only the central 2 x 2 of 4 x 4 or 8 x 8 pixels."""
    feature = torch.randn(2, 3, 24, 40)
    levels = [torch.zeros(2, 3, 24 // k, 40 // k) for k in (1, 2, 4, 8)]
    for k, out in zip((1, 2, 4, 8), downsample_add(feature, levels), strict=True):
        cells = feature.unfold(2, k, k).unfold(3, k, k)
        center = slice((k - 1) // 2, k // 2 + 1)
        torch.testing.assert_close(out, cells[..., center, center].mean(dim=(-2, -1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_dtypes_accumulate_in_float(dtype):
    feature, *pyramid = (m.to(dtype) for m in maps(8, [(8, 12), (8, 12), (4, 6)]))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    want = downsample_add_reference(feature.to(wide), [p.to(wide) for p in pyramid])
    for out, w in zip(downsample_add(feature, pyramid), want, strict=True):
        assert out.dtype == dtype
        torch.testing.assert_close(out, w.to(dtype), **TOLERANCES[dtype])


def test_keeps_the_layout_of_the_feature():
    feature, *pyramid = (LAYOUTS["channels_last"](m) for m in maps(8, [(8, 12), (4, 6)]))
    assert downsample_add(feature, pyramid)[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients(layout):
    tensors = [
        LAYOUTS[layout](m).requires_grad_() for m in maps(2, [(6, 5), (6, 5), (3, 2), (1, 7)], dtype=torch.float64)
    ]
    f = lambda feature, *pyramid: tuple(downsample_add(feature, list(pyramid)))
    assert torch.autograd.gradcheck(f, tensors)
    assert torch.autograd.gradgradcheck(f, tensors)


def test_gradient_is_the_same_for_any_thread_count():
    feature, *pyramid = maps(32, [(40, 50), (40, 50), (20, 25)])
    feature.requires_grad_()
    grads = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        grads.append(torch.autograd.grad(sum(o.square().sum() for o in downsample_add(feature, pyramid)), feature)[0])
    assert torch.equal(*grads)


def test_empty_inputs():
    feature, *pyramid = maps(4, [(6, 8), (3, 4)], images=0)
    assert downsample_add(feature, pyramid)[0].shape == (0, 4, 3, 4)
    assert downsample_add(feature, []) == []


def test_mixed_dtypes_are_promoted():
    feature, level = maps(4, [(6, 8), (3, 4)])
    assert downsample_add(feature.bfloat16(), [level])[0].dtype == torch.float32


@needs_kernels
def test_forward_mode_is_refused():
    feature, level = maps(4, [(6, 8), (3, 4)])
    with pytest.raises(NotImplementedError, match="downsample_add"):
        torch.func.jvp(lambda f: downsample_add(f, [level])[0], (feature,), (feature,))


@needs_kernels
def test_vmap_is_refused():
    feature, level = torch.randn(3, 2, 4, 6, 8), torch.randn(3, 2, 4, 3, 4)
    with pytest.raises(RuntimeError, match="Batching rule not implemented for rpcnn::downsample_add"):
        torch.func.vmap(lambda f, p: downsample_add(f, [p])[0])(feature, level)


@pytest.mark.parametrize(
    ("feature", "pyramid", "message"),
    [
        (torch.zeros(1, 2, 3), [], r"feature must have shape \[N, C, H, W\], got \[1, 2, 3\]"),
        (torch.zeros(1, 2, 3, 4, dtype=torch.int64), [], "feature must be float32.*int64"),
        (torch.zeros(1, 2, 0, 4), [torch.zeros(1, 2, 3, 4)], "feature must have pixels"),
        (torch.zeros(1, 2, 3, 4), [torch.zeros(1, 3, 3, 4)], r"pyramid\[0\] must be \[1, 2, H, W\]"),
        (torch.zeros(1, 2, 3, 4), [torch.zeros(1, 2, 3, 4, device="meta")], r"pyramid\[0\].*meta"),
    ],
)
def test_bad_input_is_named(feature, pyramid, message):
    with pytest.raises(ValueError, match=message):
        downsample_add(feature, pyramid)


@needs_kernels
def test_the_raw_operator_checks_too():
    with pytest.raises(RuntimeError, match="downsample_add"):
        torch.ops.rpcnn.downsample_add(torch.zeros(1, 2, 3), [])
