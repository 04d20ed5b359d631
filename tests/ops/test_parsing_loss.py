import pytest
import torch
import torch.nn.functional as F
from helpers.layouts import LAYOUTS, TOLERANCES, needs_kernels

from rpcnn.ops import parsing_loss, parsing_loss_reference, parsing_miou


def case(rois=3, classes=20, size=(24, 40), dtype=torch.float32):
    logits = (3 * torch.randn(rois, classes, *size)).to(dtype)
    target = torch.randint(0, classes, (rois, *size), dtype=torch.uint8)
    near = torch.rand(rois, *size) < 0.6
    target[near] = logits.argmax(1).to(torch.uint8)[near]
    target[torch.rand(rois, *size) < 0.1] = 255
    return logits, target


def with_gradients(function, logits, *arguments, weights=(0.3, 1.0), **options):
    """The op's results and the gradient of a weighted sum of both losses."""
    logits = logits.detach().requires_grad_()
    loss, valid, miou, pooled = function(logits, *arguments, **options)
    ramp = torch.linspace(-1, 1, pooled.numel(), dtype=pooled.dtype).view(pooled.shape)
    total = weights[0] * loss + weights[1] * (pooled * ramp).sum().to(loss.dtype)
    grad = torch.autograd.grad(total, logits)[0]
    return [t.detach() for t in (loss, valid, miou, pooled, grad)]


def assert_same(got, want, dtype=torch.float32):
    for number, (g, w) in enumerate(zip(got, want, strict=True)):
        if number == 1:
            assert torch.equal(g, w)
        else:
            tolerance = TOLERANCES[torch.float32 if number == 2 else dtype]
            torch.testing.assert_close(g, w, **tolerance)


@pytest.mark.parametrize("pool_logits", [False, True])
@pytest.mark.parametrize(("size", "pool"), [((1, 1), 1), ((24, 40), 4), ((6, 9), 3), ((16, 32), 16), ((5, 70), 1)])
@pytest.mark.parametrize(("rois", "classes"), [(0, 3), (1, 1), (3, 20), (2, 59), (1, 256)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference(layout, rois, classes, size, pool, pool_logits):
    logits, target = case(rois, classes, size)
    got = with_gradients(parsing_loss, LAYOUTS[layout](logits), target, pool, pool_logits)
    assert_same(got, with_gradients(parsing_loss_reference, logits, target, pool, pool_logits))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_dtypes_compute_in_float(layout, dtype):
    logits, target = case(dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    got = with_gradients(parsing_loss, LAYOUTS[layout](logits), target, 4)
    want = with_gradients(parsing_loss_reference, logits, target, 4)
    assert [t.dtype for t in got] == [wide, torch.int64, torch.float32, dtype, dtype]
    torch.testing.assert_close(got[0], want[0], **TOLERANCES[wide])
    assert_same(got, want, dtype)


@pytest.mark.parametrize("kind", ["loss", "maps"])
def test_either_gradient_alone(kind):
    logits, target = case()
    index = {"loss": 0, "maps": 3}[kind]
    grads = []
    for function in (parsing_loss, parsing_loss_reference):
        logits.requires_grad_()
        grads.append(torch.autograd.grad(function(logits, target, 4)[index].sum(), logits)[0])
    torch.testing.assert_close(*grads, **TOLERANCES[torch.float32])


def test_the_miou_is_that_of_parsing_miou():
    logits, target = case()
    assert torch.equal(parsing_loss(logits, target, 4)[2], parsing_miou(logits, target))


@pytest.mark.parametrize("pool_logits", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_equal_pixels_give_the_gradient_to_the_first(layout, pool_logits):
    logits, target = case(2, 5, (8, 8))
    logits = LAYOUTS[layout](F.interpolate(logits[..., ::2, ::2], scale_factor=2))  # four equal pixels
    got = with_gradients(parsing_loss, logits, target, 4, pool_logits)
    assert_same(got, with_gradients(parsing_loss_reference, logits, target, 4, pool_logits))


@pytest.mark.parametrize("pool_logits", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite(value, pool_logits):
    logits, target = case(2, 5, (8, 8))
    logits[0, 2, 3, 1:3] = value
    logits[1, :, 5, 6] = value
    got = with_gradients(parsing_loss, logits, target, 4, pool_logits)
    want = with_gradients(parsing_loss_reference, logits, target, 4, pool_logits)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("scale", [1e-3, 10.0, 100.0])
def test_small_and_large_logits(scale):
    logits, target = case(dtype=torch.float64)
    logits = scale * logits
    got = with_gradients(parsing_loss, logits.float(), target, 4)
    want = with_gradients(parsing_loss_reference, logits.float().double(), target, 4)
    torch.testing.assert_close(got[0].double(), want[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[3].double(), want[3], rtol=2e-5, atol=1e-7)
    torch.testing.assert_close(got[4].double(), want[4], rtol=1e-4, atol=2e-5)


def test_labels_beyond_the_classes_and_the_ignored_one_do_not_count():
    logits, target = case(classes=5)
    target[0, 0, :3] = torch.tensor([5, 77, 3])
    got = with_gradients(parsing_loss, logits, target, 4, ignore_index=3)
    assert_same(got, with_gradients(parsing_loss_reference, logits, target, 4, ignore_index=3))
    assert got[1].sum() == ((target < 5) & (target != 3)).sum()


def test_a_roi_without_valid_pixels_has_no_loss():
    logits, target = case(2)
    target[0] = 255
    loss, valid, miou, _ = parsing_loss(logits, target, 4)
    alone = parsing_loss(logits[1:], target[1:], 4)
    assert valid[0] == 0 and miou[0] == 0 and torch.equal(loss, alone[0])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients(layout):
    logits, target = case(2, 3, (4, 6), torch.float64)
    logits = LAYOUTS[layout](logits).requires_grad_()
    for pool_logits in (False, True):
        f = lambda logits, pool_logits=pool_logits: parsing_loss(logits, target, 2, pool_logits)[::3]
        assert torch.autograd.gradcheck(f, logits)


def test_keeps_the_layout_of_the_logits():
    logits, target = case()
    results = with_gradients(parsing_loss, LAYOUTS["channels_last"](logits), target, 4)
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in results[3:])


def test_thread_count_changes_nothing():
    logits, target = case(5)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(with_gradients(parsing_loss, logits, target, 4))
    assert all(map(torch.equal, *results))


def test_counts_and_miou_are_not_differentiable():
    logits, target = case()
    loss, valid, miou, pooled = parsing_loss(logits.requires_grad_(), target, 4)
    assert loss.requires_grad and pooled.requires_grad and not valid.requires_grad and not miou.requires_grad


@needs_kernels
def test_derivatives_that_are_not_there_are_refused():
    logits, target = case()
    with pytest.raises(NotImplementedError, match="parsing_loss"):
        torch.func.jvp(lambda x: parsing_loss(x, target, 4)[0], (logits,), (logits,))
    logits.requires_grad_()
    grad = torch.autograd.grad(parsing_loss(logits, target, 4)[0], logits, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="parsing_loss: double backward"):
        grad.sum().backward()


@needs_kernels
def test_compiles_without_a_graph_break():
    logits, target = case()
    compiled = torch.compile(parsing_loss, fullgraph=True, backend="aot_eager")
    got, want = (with_gradients(f, logits, target, 4) for f in (compiled, parsing_loss))
    assert all(map(torch.equal, got, want))


LABELS = torch.zeros(2, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("logits", "target", "pool", "message"),
    [
        (torch.zeros(2, 3, 4), LABELS, 2, r"logits must have shape \[N, C, H, W\], got \[2, 3, 4\]"),
        (torch.zeros(2, 0, 4, 4), LABELS, 2, "classes must be 1 to 256, got 0"),
        (torch.zeros(2, 257, 4, 4), LABELS, 2, "classes must be 1 to 256, got 257"),
        (torch.zeros(2, 3, 4, 4), LABELS.long(), 2, "target must be uint8, got torch.int64"),
        (torch.zeros(2, 3, 4, 5), LABELS, 2, r"target must be \[2, 4, 5\] on cpu, got \[2, 4, 4\] on cpu"),
        (torch.zeros(2, 3, 4, 4), LABELS.to("meta"), 2, "target must be .* on cpu, got .* on meta"),
        (torch.zeros(2, 3, 4, 4), LABELS, 0, "pool must be 1 to 16, got 0"),
        (torch.zeros(2, 3, 4, 4), LABELS, 3, "pool must divide the logits' height and width, got 3 for 4 x 4"),
        (torch.zeros(2, 3, 0, 4), LABELS[:, :0], 2, "pool must divide the logits' height and width, got 2 for 0 x 4"),
    ],
)
def test_bad_input_is_named(logits, target, pool, message):
    with pytest.raises(ValueError, match=f"parsing_loss: {message}"):
        parsing_loss(logits, target, pool)


@needs_kernels
@pytest.mark.parametrize(
    ("logits", "target", "pool"),
    [
        (torch.zeros(2, 3, 4), LABELS, 2),
        (torch.zeros(2, 257, 4, 4), LABELS, 2),
        (torch.zeros(2, 3, 4, 4), LABELS.long(), 2),
        (torch.zeros(2, 3, 4, 5), LABELS, 2),
        (torch.zeros(2, 3, 4, 4), LABELS, 3),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), LABELS, 2),
    ],
)
def test_the_dispatcher_refuses_bad_input(logits, target, pool):
    with pytest.raises(RuntimeError, match="parsing_loss: "):
        torch.ops.rpcnn.parsing_loss(logits, target, pool, False, 255)
