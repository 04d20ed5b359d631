import pytest
import torch
import torchvision
from layouts import compiled

from rpcnn.ops import batched_nms, nms, nms_reference

needs_kernels = pytest.mark.skipif(not compiled, reason="needs the compiled kernels")
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def clustered(count, seed=0, dtype=torch.float32, spread=300.0):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(max(count // 8, 1), 2, generator=generator) * spread
    centre = centre[torch.randint(0, len(centre), (count,), generator=generator)]
    centre = centre + torch.randn(count, 2, generator=generator) * 6
    size = 20 + 40 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
    return boxes.to(dtype), torch.rand(count, generator=generator)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 17, 511, 512, 513, 3000])
def test_equals_torchvision_in_double(count, threshold):
    boxes, scores = clustered(count)
    want = torchvision.ops.nms(boxes.double(), scores.double(), threshold)
    assert torch.equal(nms(boxes, scores, threshold), want)


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


def test_a_hair_above_the_threshold_is_suppressed():
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
def test_a_box_that_is_not_finite_neither_suppresses_nor_is_suppressed(value):
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


@pytest.mark.parametrize("shift", [0.0, -1000.0])
def test_batched_is_nms_of_each_group(shift):
    boxes, scores = clustered(700)
    boxes, idxs = boxes + shift, torch.randint(-3, 40, (700,)) * 1_000_003
    want = torch.cat(
        [(idxs == i).nonzero()[:, 0][nms(boxes[idxs == i], scores[idxs == i], 0.4)] for i in idxs.unique()]
    )
    want = want[scores[want].argsort(descending=True, stable=True)]
    assert torch.equal(batched_nms(boxes, scores, idxs, 0.4), want)


def test_the_same_for_any_thread_count_and_input_untouched():
    boxes, scores = clustered(9000, spread=2000.0)
    before, results = boxes.clone(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(nms(boxes, scores, 0.6))
    assert torch.equal(*results) and torch.equal(boxes, before)


def test_strided_boxes():
    boxes, scores = clustered(100)
    wide = torch.cat([boxes, boxes], 1)
    assert torch.equal(nms(wide[:, :4], scores, 0.5), nms(boxes, scores, 0.5))


@needs_kernels
def test_opcheck():
    boxes, scores = clustered(20)
    torch.library.opcheck(torch.ops.rpcnn.nms, (boxes, scores, None, 0.5, -1))
    torch.library.opcheck(torch.ops.rpcnn.nms, (boxes, scores, torch.arange(20) % 2, 0.5, 5))


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
        ((torch.zeros(3, 4), torch.zeros(3), 0.5, -2), "max_keep must be None or >= 0, got -2"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        nms(*arguments)


def test_float_idxs_are_refused():
    with pytest.raises(ValueError, match="idxs must be integers"):
        batched_nms(torch.zeros(3, 4), torch.zeros(3), torch.zeros(3), 0.5)
