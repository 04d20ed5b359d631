import pytest
import torch
import torch.nn.functional as F
from helpers.layouts import LAYOUTS, TOLERANCES, needs_kernels

from rpcnn.ops import gse_fuse, gse_fuse_reference

# The last two have levels with one pixel a side, and levels larger than the first.
SIZES = [[(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)], [(9, 1), (4, 3), (1, 1)], [(5, 7), (13, 6), (11, 29)]]


def inputs(channels, sizes, images=2, offset=0.0, spread=1.0, dtype=torch.float32):
    features = [offset + spread * torch.randn(images, channels, *size, dtype=dtype) for size in sizes]
    weights = [1 + 0.3 * torch.randn(channels, dtype=dtype) for _ in sizes]
    biases = [0.3 * torch.randn(channels, dtype=dtype) for _ in sizes]
    return features, weights, biases


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (96, 32)])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{len(sizes)} levels")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_equals_reference(layout, sizes, channels, groups, align_corners):
    features, weights, biases = inputs(channels, sizes)
    features = [LAYOUTS[layout](f) for f in features]
    out = gse_fuse(features, weights, biases, groups, align_corners=align_corners)
    want = gse_fuse_reference(features, weights, biases, groups, align_corners=align_corners)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout):
    features, weights, biases = inputs(6, SIZES[0])
    features = [LAYOUTS[layout](f) for f in features]
    out, want = gse_fuse(features, weights, biases, 3), gse_fuse_reference(features, weights, biases, 3)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=2e-5)
    assert out.is_contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (100.0, 0.1)])
def test_is_at_least_as_accurate_as_the_composition(offset, spread, layout):
    tensors = inputs(8, [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)], offset=offset, spread=spread)
    tensors = ([LAYOUTS[layout](f).requires_grad_() for f in tensors[0]], *tensors[1:])
    slope = torch.linspace(-1, 1, 48)

    def value_and_gradients(f, dtype):
        features, weights, biases = ([t.to(dtype) for t in ts] for ts in tensors)
        out = f(features, weights, biases, 4)
        return out.detach(), *torch.autograd.grad((out * slope.to(dtype)).sum(), features)

    truth = value_and_gradients(gse_fuse_reference, torch.float64)
    got, composed = (value_and_gradients(f, torch.float32) for f in (gse_fuse, gse_fuse_reference))
    for a, b, t in zip(got, composed, truth, strict=True):
        scale = t.square().mean().sqrt()
        assert (a - t).square().mean().sqrt() <= 1.1 * (b - t).square().mean().sqrt() + 1e-7 * scale


@needs_kernels
def test_statistics_are_those_of_the_upsampled_maps():
    features, weights, biases = inputs(6, SIZES[0], dtype=torch.float64)
    _, mean, rstd = torch.ops.rpcnn.gse_fuse(features, weights, biases, 3, 1e-5, True)
    for level, feature in enumerate(features):
        up = F.interpolate(feature, SIZES[0][0], mode="bilinear", align_corners=True).reshape(2, 3, -1)
        torch.testing.assert_close(mean[:, level], up.mean(2))
        torch.testing.assert_close(rstd[:, level], (up.var(2, correction=0) + 1e-5).rsqrt())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_nan_spoils_its_group_and_no_other(layout):
    features, weights, biases = inputs(4, [(6, 8), (3, 4)])
    features[1][1, 3, 2, 2] = torch.nan
    out = gse_fuse([LAYOUTS[layout](f) for f in features], weights, biases, 2)
    assert out[1, 2:].isnan().all() and out[0].isfinite().all() and out[1, :2].isfinite().all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_pixel_that_no_output_reads_spoils_nothing(layout, value):
    features, weights, biases = inputs(4, [(2, 3), (6, 9)])  # the second level is reduced: every third pixel is read
    features[1][0, 0, 0, 0] = features[1][0, 2, 3, 3] = value
    features = [LAYOUTS[layout](f).requires_grad_() for f in features]
    out, want = (f(features, weights, biases, 2, 1e-5, False) for f in (gse_fuse, gse_fuse_reference))
    assert want.isfinite().all()
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)
    grads, expected = (torch.autograd.grad(o.square().sum(), features) for o in (out, want))
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_maps_keep_float_statistics(dtype):
    features, weights, biases = inputs(8, SIZES[0])
    features = [f.to(dtype) for f in features]
    out = gse_fuse(features, weights, biases, 4)
    want = gse_fuse_reference([f.float() for f in features], weights, biases, 4).to(dtype)
    assert out.dtype == dtype
    torch.testing.assert_close(out, want, **TOLERANCES[dtype])


def test_the_1x1_convolution_may_run_before_the_upsampling():
    features, weights, biases = inputs(8, SIZES[0])
    kernels = [torch.randn(8, 8, 1, 1) for _ in features]
    out = gse_fuse([F.conv2d(f, k) for f, k in zip(features, kernels, strict=True)], weights, biases, 4)
    up = [F.interpolate(f, SIZES[0][0], mode="bilinear", align_corners=True) for f in features]
    convolved = [F.conv2d(u, k) for u, k in zip(up, kernels, strict=True)]
    want = sum(F.relu(F.group_norm(c, 4, w, b)) for c, w, b in zip(convolved, weights, biases, strict=True))
    torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients(layout, align_corners):
    features, weights, biases = inputs(4, [(4, 5), (2, 3), (6, 1)], images=1, dtype=torch.float64)
    leaves = [LAYOUTS[layout](f).requires_grad_() for f in features]
    leaves += [v.requires_grad_() for v in (*weights, *biases)]

    def f(*tensors):
        return gse_fuse(list(tensors[:3]), list(tensors[3:6]), list(tensors[6:]), 2, align_corners=align_corners)

    assert torch.autograd.gradcheck(f, leaves)


def test_gradients_equal_the_compositions_in_float32():
    features, weights, biases = inputs(64, SIZES[0])
    leaves = [t.requires_grad_() for t in (*features, *weights, *biases)]
    grads = []
    for f in (gse_fuse, gse_fuse_reference):
        out = f(features, weights, biases, 32)
        grads.append(torch.autograd.grad((out * torch.linspace(-1, 1, out.shape[3])).sum(), leaves))
    for got, expected in zip(*grads, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_same_for_any_thread_count(layout):
    features, weights, biases = inputs(16, [(40, 50), (20, 25), (10, 13)])
    leaves = [LAYOUTS[layout](f).requires_grad_() for f in features]
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = gse_fuse(leaves, weights, biases, 4)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@needs_kernels
def test_opcheck_with_gradients_of_the_affine():
    features, weights, biases = inputs(4, [(6, 8), (3, 4)])
    for t in (*weights, *biases):
        t.requires_grad_()
    torch.library.opcheck(torch.ops.rpcnn.gse_fuse, (features, weights, biases, 2, 1e-5, True))


@needs_kernels
def test_statistics_outputs_do_not_silently_drop_gradients():
    features, weights, biases = inputs(4, [(6, 8), (3, 4)])
    features[0].requires_grad_()
    assert [t.requires_grad for t in torch.ops.rpcnn.gse_fuse(features, weights, biases, 2, 1e-5, True)] == [
        True,
        False,
        False,
    ]


@needs_kernels
def test_forward_mode_is_refused():
    features, weights, biases = inputs(4, [(6, 8), (3, 4)])
    with pytest.raises(NotImplementedError, match="gse_fuse"):
        torch.func.jvp(lambda w: gse_fuse(features, [w, weights[1]], biases, 2), (weights[0],), (weights[0],))


@needs_kernels
def test_the_raw_operator_checks_too():
    features, weights, biases = inputs(4, [(6, 8), (3, 4)])
    with pytest.raises(RuntimeError, match="num_groups must divide 4"):
        torch.ops.rpcnn.gse_fuse(features, weights, biases, 3, 1e-5, True)
    with pytest.raises(RuntimeError, match="gn_weights and gn_biases"):
        torch.ops.rpcnn.gse_fuse(features, [w.double() for w in weights], biases, 2, 1e-5, True)


@needs_kernels
def test_double_backward_is_refused():
    features, weights, biases = inputs(4, [(6, 8), (3, 4)])
    features[0].requires_grad_()
    out = gse_fuse(features, weights, biases, 2)
    grad = torch.autograd.grad(out.square().sum(), features[0], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="gse_fuse: double backward"):
        grad.sum().backward()


def test_empty_batch():
    features, weights, biases = inputs(4, [(6, 8), (3, 4)], images=0)
    assert gse_fuse(features, weights, biases, 2).shape == (0, 4, 6, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, w, b: (f, w, b, 3), "num_groups must divide 4, got 3"),
        (lambda f, w, b: (f, w[:1], b, 2), "gn_weights must hold 2 vectors, got 1"),
        (lambda f, w, b: (f, w, [b[0], b[1][:3]], 2), r"gn_biases\[1\] must be \[4\] floats"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        gse_fuse(*change(*inputs(4, [(6, 8), (3, 4)])))
