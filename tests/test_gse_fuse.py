import pytest
import torch
import torch.nn.functional as F
from layouts import LAYOUTS, TOLERANCES, compiled

from rpcnn.ops import gse_fuse, gse_fuse_reference

needs_kernels = pytest.mark.skipif(not compiled, reason="needs the compiled kernels")
SIZES = [[(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)], [(7, 5), (4, 3), (1, 1)], [(1, 1)], [(9, 1), (5, 1)]]


def inputs(channels, sizes, images=2, offset=0.0, spread=1.0, dtype=torch.float32):
    features = [offset + spread * torch.randn(images, channels, *size, dtype=dtype) for size in sizes]
    weights = [1 + 0.3 * torch.randn(channels, dtype=dtype) for _ in sizes]
    biases = [0.3 * torch.randn(channels, dtype=dtype) for _ in sizes]
    return features, weights, biases


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (6, 3), (64, 32)])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference(layout, sizes, channels, groups, align_corners):
    features, weights, biases = inputs(channels, sizes)
    features = [LAYOUTS[layout](f) for f in features]
    out = gse_fuse(features, weights, biases, groups, align_corners=align_corners)
    want = gse_fuse_reference(features, weights, biases, groups, align_corners=align_corners)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=2e-5)


def test_a_large_offset_does_not_cancel():
    features, weights, biases = inputs(8, SIZES[0], offset=100.0, spread=0.1)
    truth = gse_fuse_reference(*([t.double() for t in ts] for ts in (features, weights, biases)), 4)
    error = (gse_fuse(features, weights, biases, 4) - truth).abs().max()
    composed = (gse_fuse_reference(features, weights, biases, 4) - truth).abs().max()
    assert error <= max(composed, torch.tensor(1e-3))


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
    features, weights, biases = inputs(4, [(5, 6), (3, 4), (2, 1)], dtype=torch.float64)
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
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


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
def test_opcheck():
    features, weights, biases = inputs(4, [(6, 8), (3, 4)])
    for t in (*features, *weights):
        t.requires_grad_()
    torch.library.opcheck(torch.ops.rpcnn.gse_fuse, (features, weights, biases, 2, 1e-5, True))


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
        (lambda f, w, b: (f[::-1], w, b, 2), r"features\[1\] must not be larger than the first"),
        (lambda f, w, b: (f, w[:1], b, 2), "gn_weights must hold 2 vectors, got 1"),
        (lambda f, w, b: (f, w, [b[0], b[1][:3]], 2), r"gn_biases\[1\] must be \[4\] floats"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        gse_fuse(*change(*inputs(4, [(6, 8), (3, 4)])))
