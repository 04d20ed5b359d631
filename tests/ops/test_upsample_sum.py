import pytest
import torch
from helpers.layouts import LAYOUTS, TOLERANCES, needs_kernels

from rpcnn.ops import upsample_sum, upsample_sum_reference

SIZES = [[(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)], [(7, 5), (4, 3), (1, 1)], [(3, 4), (5, 6), (17, 1)]]


def maps(channels, sizes, images=2, **options):
    return [torch.randn(images, channels, *size, **options) for size in sizes]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("channels", [1, 257])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{len(sizes)} levels")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_equals_reference(layout, sizes, channels, align_corners, relu):
    features = [LAYOUTS[layout](m) for m in maps(channels, sizes)]
    out = upsample_sum(features, align_corners, relu)
    torch.testing.assert_close(out, upsample_sum_reference(features, align_corners, relu), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout):
    features = [LAYOUTS[layout](m) for m in maps(3, SIZES[0])]
    torch.testing.assert_close(upsample_sum(features), upsample_sum_reference(features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
def test_half_gradients_accumulate_in_float(relu, dtype):
    features = [m.to(dtype) for m in maps(8, SIZES[0])]
    grad = torch.randn_like(features[0])
    got = torch.autograd.grad(upsample_sum([f.requires_grad_() for f in features], relu=relu), features, grad)
    wide = [f.detach().float().requires_grad_() for f in features]
    want = torch.autograd.grad(upsample_sum_reference(wide, relu=relu), wide, grad.float())
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b.to(dtype), **TOLERANCES[dtype])


@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_pass_as_in_pytorch(relu):
    features = maps(2, [(7, 10), (4, 5)])
    features[0][0, 0, 3, 3], features[1][0, 1, 2, 2] = torch.nan, torch.inf
    features = [f.requires_grad_() for f in features]
    out, want = (f(features, align_corners=False, relu=relu) for f in (upsample_sum, upsample_sum_reference))
    torch.testing.assert_close(out, want, equal_nan=True)
    got, expected = (torch.autograd.grad(o, features, torch.ones_like(o)) for o in (out, want))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", [[(8, 12), (4, 6)], [(9, 11), (5, 6)], [(3, 2), (9, 6)], [(5, 6), (5, 3), (1, 6)]])
def test_a_nan_shows_in_every_output_in_which_pytorch_shows_it(sizes, align_corners, layout):
    for level in range(1, len(sizes)):
        features = maps(1, sizes, images=1)
        pixels = features[level].shape[2] * features[level].shape[3]
        for pixel in range(pixels):  # some are neighbors of weight 0, some are not read at all
            poisoned = features[level].clone()
            poisoned.view(-1)[pixel] = torch.nan
            given = [LAYOUTS[layout](poisoned if i == level else f) for i, f in enumerate(features)]
            got, want = (f(given, align_corners) for f in (upsample_sum, upsample_sum_reference))
            assert torch.equal(got.isnan(), want.isnan())


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_half_types_accumulate_in_float(dtype):
    features = [m.to(dtype) for m in maps(8, SIZES[0])]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    want = upsample_sum_reference([f.to(wide) for f in features]).to(dtype)
    out = upsample_sum(features)
    assert out.dtype == dtype
    torch.testing.assert_close(out, want, **TOLERANCES[dtype])


def test_keeps_the_layout_of_the_finest_level():
    out = upsample_sum([LAYOUTS["channels_last"](m) for m in maps(8, SIZES[0])])
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients(layout, align_corners, relu):
    sizes = [(5, 4), (3, 2), (1, 6)]
    features = [LAYOUTS[layout](m).requires_grad_() for m in maps(2, sizes, images=1, dtype=torch.float64)]
    f = lambda *levels: upsample_sum(list(levels), align_corners, relu)
    assert torch.autograd.gradcheck(f, features)
    if not relu:
        assert torch.autograd.gradgradcheck(f, features)


def test_double_backward_through_one_level_alone():
    features = [m.requires_grad_() for m in maps(2, [(6, 5), (3, 2)])]
    second = []
    for f in (upsample_sum, upsample_sum_reference):
        grads = torch.autograd.grad(f(features).pow(3).sum(), features, create_graph=True)
        second.append(torch.autograd.grad(grads[1].square().sum(), features))
    for got, expected in zip(*second, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-2)


@needs_kernels
def test_double_backward_with_relu_is_refused():
    features = [m.requires_grad_() for m in maps(2, [(6, 5), (3, 2)])]
    grad = torch.autograd.grad(upsample_sum(features, relu=True).square().sum(), features, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="upsample_sum: double backward"):
        grad.sum().backward()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_same_for_any_thread_count(layout):
    features = [LAYOUTS[layout](m).requires_grad_() for m in maps(16, [(40, 50), (20, 25), (10, 13)])]
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = upsample_sum(features, relu=True)
        results.append([out, *torch.autograd.grad(out.square().sum(), features)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_empty_batch():
    assert upsample_sum(maps(4, [(6, 8), (3, 4)], images=0)).shape == (0, 4, 6, 8)


@needs_kernels
def test_forward_mode_is_refused():
    features = maps(2, [(4, 4), (2, 2)])
    with pytest.raises(NotImplementedError, match="upsample_sum"):
        torch.func.jvp(lambda f: upsample_sum([f, features[1]]), (features[0],), (features[0],))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "features must hold at least one map"),
        ([torch.zeros(2, 3)], r"features\[0\] must have shape \[N, C, H, W\]"),
        ([torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 3, 4)], r"features\[1\] must be \[1, 2, H, W\]"),
        ([torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 0, 4)], r"features\[1\] must have pixels"),
    ],
)
def test_bad_input_is_named(features, message):
    with pytest.raises(ValueError, match=message):
        upsample_sum(features)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_sums_round_as_in_pytorch(dtype):
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype).view(1, 1, 256, 256)
    other = every.flatten()[torch.randperm(1 << 16, generator=torch.Generator().manual_seed(0))].view_as(every)
    assert torch.equal(upsample_sum([every]).isnan(), every.isnan())
    torch.testing.assert_close(upsample_sum([every]), every, rtol=0, atol=0, equal_nan=True)
    want = (every.float() + other.float()).to(dtype)
    torch.testing.assert_close(upsample_sum([every, other]), want, rtol=0, atol=0, equal_nan=True)
