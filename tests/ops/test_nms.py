from fractions import Fraction

import pytest
import torch
import torchvision
from helpers.layouts import needs_kernels
from torch._subclasses.fake_tensor import FakeTensorMode

from rpcnn.ops import batched_nms, nms, nms_padded, nms_padded_reference, nms_reference

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def clustered(count, seed=0, dtype=torch.float32, spread=300.0):
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(max(count // 8, 1), 2, generator=generator) * spread
    center = center[torch.randint(0, len(center), (count,), generator=generator)]
    center = center + torch.randn(count, 2, generator=generator) * 6
    size = 20 + 40 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat([center - size / 2, center + size / 2], 1)
    return boxes.to(dtype), torch.rand(count, generator=generator)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 17, 511, 512, 513, 3000])
def test_equals_torchvision_in_double(count, threshold):
    boxes, scores = clustered(count)
    want = torchvision.ops.nms(boxes.double(), scores.double(), threshold)
    assert torch.equal(nms(boxes, scores, threshold), want)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("far", [0.0, 1e7, 1e15])
def test_boxes_of_very_different_sizes_match_torchvision(far, threshold):
    generator = torch.Generator().manual_seed(1)
    rand = lambda *size: torch.rand(*size, generator=generator, dtype=torch.float64)
    extent = 10 ** (4 * rand(2500, 1)) * (0.7 + 0.6 * rand(2500, 2))  # 1 to 10,000
    corner = 300 * rand(2500, 2) - extent * rand(2500, 2)
    corner[:5] += 1e9  # far outliers
    boxes, scores = torch.cat([corner, corner + extent], 1) + far, rand(2500)
    assert torch.equal(nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize("max_keep", [None, 0, 300])
def test_the_reference_equals_torchvision_in_double(max_keep):
    boxes, scores = clustered(1500)
    want = torchvision.ops.nms(boxes.double(), scores.double(), 0.5)[:max_keep]
    assert torch.equal(nms_reference(boxes, scores, 0.5, max_keep), want)


@pytest.mark.parametrize("dtype", FLOATS)
def test_equals_reference_in_every_dtype(dtype):
    boxes, scores = clustered(300, dtype=dtype)
    assert torch.equal(nms(boxes, scores.to(dtype), 0.5), nms_reference(boxes, scores.to(dtype), 0.5))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("tenths", range(1, 10))
def test_an_iou_equal_to_the_threshold_is_kept(tenths, dtype):
    # 10 × 10 against its top 10 × tenths: inter = 10 · tenths, union = 100.
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, tenths]], dtype=dtype)
    scores = torch.tensor([2.0, 1.0], dtype=dtype)
    assert nms(boxes, scores, tenths / 10).tolist() == [0, 1]
    assert nms(boxes, scores, tenths / 10 - 0.001).tolist() == [0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("tenths", [1, 3, 5, 7])
def test_integer_boxes_with_equal_ious_match_torchvision(tenths, dtype):
    low = torch.randint(0, 12, (1000, 2))
    boxes = torch.cat([low, low + torch.randint(1, 12, (1000, 2))], 1)
    scores = torch.rand(1000)
    want = torchvision.ops.nms(boxes.double(), scores.double(), tenths / 10)
    assert torch.equal(nms(boxes.to(dtype), scores, tenths / 10), want)


@pytest.mark.parametrize("function", [nms, nms_reference])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 1 / 3])
def test_ious_near_the_threshold_compare_exactly(threshold, function):
    wrong = []
    for _ in range(100):
        x, y, width, height = (torch.rand(4) * torch.tensor([800.0, 800, 300, 300])).tolist()
        near = torch.tensor(y + threshold * height)
        for _ in range(int(torch.randint(4, ()))):
            near = torch.nextafter(near, torch.tensor(1e9))
        boxes = torch.tensor([[x, y, x + width, y + height], [x, y, x + width, near]])
        (x1, y1, x2, y2), (_, _, _, cut) = ([Fraction(v) for v in row] for row in boxes.double().tolist())
        iou = (x2 - x1) * (cut - y1) / ((x2 - x1) * (y2 - y1))
        want = [0] if iou > Fraction(threshold) * (1 + Fraction(1, 10**12)) else [0, 1]
        if function(boxes, torch.tensor([2.0, 1.0]), threshold).tolist() != want:
            wrong.append(boxes)
    assert not wrong


@pytest.mark.parametrize("function", [nms, nms_reference])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, 1e-37), (torch.float32, 3e36), (torch.float64, 1e-250), (torch.float64, 1e250)],
)
def test_no_area_overflows_or_vanishes(dtype, scale, function):
    boxes = torch.tensor([[-10.0, -10, 10, 10], [-10, -10, 10, 9], [-10, -10, 10, -5]], dtype=dtype) * scale
    assert function(boxes, torch.tensor([3.0, 2, 1]), 0.5).tolist() == [0, 2]


@pytest.mark.parametrize("function", [nms, nms_reference])
def test_threshold_zero_suppresses_any_overlap(function):
    boxes = torch.tensor([[0, 0, 1e4, 1e4], [-1e4, -1e4, 1e-6, 1e-6], [-1e4, 0, 0, 1e4]])  # IoU 5e-21, touching
    assert function(boxes, torch.tensor([3.0, 2, 1]), 0.0).tolist() == [0, 2]


def test_iou_just_above_the_threshold_is_suppressed():
    # IoU = 0.5 + 2e-8, closer to 0.5 than float can tell.
    boxes = torch.tensor([[0, 0, 100_000, 100], [0, 0, 50_000.004, 100]], dtype=torch.float64)
    assert nms(boxes, torch.tensor([2.0, 1.0]), 0.5).tolist() == [0]
    # and in float boxes: inter/union = 8388609 / 16777216
    boxes = torch.tensor([[0, 0, 16_777_216, 1], [0, 0, 8_388_609, 1]], dtype=torch.float32)
    assert nms(boxes, torch.tensor([2.0, 1.0]), 0.5).tolist() == [0]


def test_ties_keep_input_order():
    boxes = torch.arange(50.0)[:, None] * torch.tensor([100.0, 0, 100, 0]) + torch.tensor([0.0, 0, 10, 10])
    assert nms(boxes, torch.ones(50), 0.5).tolist() == list(range(50))
    assert batched_nms(boxes, torch.ones(50), torch.arange(50) % 3, 0.5).tolist() == list(range(50))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_boxes_overlap_nothing(value):
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, value, 10], [0, 0, 10, 9.5]])
    assert nms(boxes, torch.tensor([1.0, 3.0, 2.0]), 0.5).tolist() == [1, 2]


def test_nan_scores_come_last():
    boxes = torch.tensor([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    assert nms(boxes, torch.tensor([float("nan"), 1.0, -float("inf")]), 0.5).tolist() == [1, 2, 0]


def test_boxes_without_area_overlap_nothing():
    boxes = torch.tensor([[5, 5, 5, 5], [5, 5, 5, 5], [9, 9, 1, 1], [0, 0, 10, 10.0]])
    assert nms(boxes, torch.tensor([4.0, 3, 2, 1]), 0.0).tolist() == [0, 1, 2, 3]


def test_huge_half_boxes_do_not_overflow():
    boxes = torch.tensor([[0, 0, 60_000, 60_000], [0, 0, 60_000, 50_000]], dtype=torch.float16)
    assert nms(boxes, torch.tensor([2.0, 1.0]), 0.5).tolist() == [0]
    far = torch.tensor([[0, 0, 1e20, 1e20], [0, 0, 1e20, 9e19]])
    assert nms(far, torch.tensor([2.0, 1.0]), 0.5).tolist() == [0]


@pytest.mark.parametrize("max_keep", [0, 1, 7, 10_000])
def test_max_keep_is_a_prefix(max_keep):
    boxes, scores = clustered(900)
    idxs = torch.arange(900) % 4
    assert torch.equal(nms(boxes, scores, 0.5, max_keep), nms(boxes, scores, 0.5)[:max_keep])
    assert torch.equal(
        batched_nms(boxes, scores, idxs, 0.5, max_keep), batched_nms(boxes, scores, idxs, 0.5)[:max_keep]
    )


@pytest.mark.parametrize("function", [nms_padded, nms_padded_reference])
@pytest.mark.parametrize(("count", "max_keep"), [(0, 3), (50, 0), (300, 10), (300, 1000)])
def test_padded_is_batched_nms_and_then_minus_one(count, max_keep, function):
    boxes, scores = clustered(count)
    idxs = torch.arange(count) % 3
    indices, kept = function(boxes, scores, idxs, 0.5, max_keep)
    want = batched_nms(boxes, scores, idxs, 0.5, max_keep)
    assert indices.shape == (max_keep,) and kept.shape == () and kept.dtype == torch.int64
    assert kept == len(want) and torch.equal(indices[:kept], want) and (indices[kept:] == -1).all()


@pytest.mark.parametrize("shift", [0.0, -1000.0])
def test_batched_is_nms_of_each_group(shift):
    boxes, scores = clustered(700)
    boxes, idxs = boxes + shift, torch.randint(-3, 40, (700,)) * 1_000_003
    want = torch.cat(
        [(idxs == i).nonzero()[:, 0][nms(boxes[idxs == i], scores[idxs == i], 0.4)] for i in idxs.unique()]
    )
    want = want[scores[want].argsort(descending=True, stable=True)]
    assert torch.equal(batched_nms(boxes, scores, idxs, 0.4), want)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_idxs_of_every_integer_dtype(dtype):
    boxes, scores = clustered(200)
    limits = torch.iinfo(dtype)
    idxs = torch.tensor([limits.min, limits.max, 3], dtype=dtype)[torch.arange(200) % 3]
    assert torch.equal(batched_nms(boxes, scores, idxs, 0.4), batched_nms(boxes, scores, torch.arange(200) % 3, 0.4))


def test_thread_count_changes_neither_output_nor_input():
    boxes, scores = clustered(15_000, spread=3000.0)  # enough for a second thread
    before, results = boxes.clone(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(nms(boxes, scores, 0.6))
    assert torch.equal(*results) and torch.equal(boxes, before)


def test_strided_inputs():
    boxes, scores = clustered(100)
    idxs = torch.arange(100) % 3
    wide, transposed = torch.cat([boxes, boxes], 1)[:, :4], boxes.t().contiguous().t()
    every_other = torch.stack([scores, scores], 1)[:, 0], torch.stack([idxs, idxs], 1)[:, 0]
    for strided in (wide, transposed):
        assert torch.equal(batched_nms(strided, *every_other, 0.5), batched_nms(boxes, scores, idxs, 0.5))


@needs_kernels
def test_opcheck_without_limit_and_with_groups():
    boxes, scores = clustered(20)
    torch.library.opcheck(torch.ops.rpcnn.nms, (boxes, scores, None, 0.5, -1))
    torch.library.opcheck(torch.ops.rpcnn.nms, (boxes, scores, torch.arange(20) % 2, 0.5, 5))


@needs_kernels
def test_the_size_of_nothing_kept_is_known():
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert type(nms(*clustered(20), 0.5, max_keep=0).shape[0]) is int


@needs_kernels
@pytest.mark.parametrize("max_keep", [None, 5])
def test_compiles_without_a_graph_break(max_keep):
    boxes, scores = clustered(50)
    idxs = torch.arange(50) % 3

    def best(boxes, scores):
        keep = batched_nms(boxes, scores, idxs, 0.5, max_keep)
        return boxes[keep] * 2

    compiled_best = torch.compile(best, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled_best(boxes, scores), best(boxes, scores))


@needs_kernels
@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(3, 5), torch.zeros(3), None, 0.5, -1),
        (torch.zeros(12), torch.zeros(3), None, 0.5, -1),
        (torch.zeros(3, 4, dtype=torch.int32), torch.zeros(3), None, 0.5, -1),
        (torch.zeros(3, 4), torch.zeros(4), None, 0.5, -1),
        (torch.zeros(3, 4), torch.zeros(3), torch.zeros(3), 0.5, -1),
        (torch.zeros(3, 4), torch.zeros(3), torch.zeros(2, dtype=torch.int64), 0.5, -1),
        (torch.zeros(3, 4), torch.zeros(3), None, float("nan"), -1),
    ],
)
def test_the_dispatcher_refuses_bad_input(arguments):
    with pytest.raises(RuntimeError, match="nms: "):
        torch.ops.rpcnn.nms(*arguments)


@needs_kernels
def test_size_of_a_meta_tensor_raises():
    with pytest.raises(RuntimeError):
        nms(torch.zeros(3, 4, device="meta"), torch.zeros(3, device="meta"), 0.5)


def test_does_not_ask_for_gradients():
    boxes, scores = clustered(20)
    assert not nms(boxes.requires_grad_(), scores.requires_grad_(), 0.5).requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 5), torch.zeros(3), 0.5), r"boxes must have shape \[R, 4\], got \[3, 5\]"),
        ((torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3), 0.5), "boxes must be float32.*int64"),
        ((torch.zeros(3, 4), torch.zeros(2), 0.5), r"scores must be \[3\] on cpu, got \[2\]"),
        ((torch.zeros(3, 4), torch.zeros(3), 1.5), "iou_threshold must lie in 0..1, got 1.5"),
        ((torch.zeros(3, 4), torch.zeros(3), float("nan")), "iou_threshold must lie in 0..1, got nan"),
        ((torch.zeros(3, 4), torch.zeros(3), 0.5, -2), "max_keep must be None or an int >= 0, got -2"),
        ((torch.zeros(3, 4), torch.zeros(3), 0.5, 2.5), "max_keep must be None or an int >= 0, got 2.5"),
        (([[0, 0, 1, 1]], torch.zeros(1), 0.5), "boxes must be a tensor, got list"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        nms(*arguments)


def test_float_idxs_are_refused():
    with pytest.raises(ValueError, match="idxs must be integers"):
        batched_nms(torch.zeros(3, 4), torch.zeros(3), torch.zeros(3), 0.5)
