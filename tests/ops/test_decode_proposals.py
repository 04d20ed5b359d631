"""decode_proposals: the chosen anchors of all levels and images, decoded and clipped."""

import pytest
import torch
from helpers.layouts import TOLERANCES

from rpcnn.ops import decode_proposals, decode_proposals_reference
from rpcnn.ops._library import CPU_MISSING

both = pytest.mark.parametrize("decode", [decode_proposals, decode_proposals_reference], ids=["op", "reference"])


def case(anchors=(40, 12, 3), keep=8, images=2, dtype=torch.float32):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    deltas = [torch.randn(images, n, 4, dtype=wide).to(dtype) for n in anchors]
    best = [torch.stack([torch.randperm(n)[:keep] for _ in range(images)]) for n in anchors if images]
    best = best or [torch.zeros(0, min(keep, n), dtype=torch.int64) for n in anchors]
    corner = 100 * torch.rand(sum(anchors), 2, dtype=wide)
    boxes = torch.cat([corner, corner + 10 + 60 * torch.rand(sum(anchors), 2, dtype=wide)], 1)
    return deltas, best, boxes, [(90 + 7 * i, 120 - 9 * i) for i in range(images)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("min_size", [0, 1])
@pytest.mark.parametrize(
    ("anchors", "keep", "images"),
    [((40, 12, 3), 8, 2), ((1,), 1, 1), ((5, 0, 4), 3, 2), ((7,) * 8, 2, 3), ((9, 4), 0, 2), ((6, 2), 4, 0)],
)
def test_equals_reference(anchors, keep, images, min_size, dtype):
    arguments = *case(anchors, keep, images, dtype), min_size
    (boxes, groups), (expected, expected_groups) = decode_proposals(*arguments), decode_proposals_reference(*arguments)
    assert boxes.dtype == arguments[2].dtype and torch.equal(groups, expected_groups)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    torch.testing.assert_close(boxes, expected, rtol=1e-6, atol=1e-10 if wide == torch.float64 else 1e-4)


@both
def test_by_hand(decode):
    anchors = torch.tensor([[0.0, 0, 10, 20], [0, 0, 16, 16], [30, 40, 50, 60]])
    deltas = [torch.tensor([[[0.5, 0.25, 0.6931472, 0], [0, 0, 0, 0]]]), torch.tensor([[[2.0, -1, 0, 0]]])]
    boxes, groups = decode(deltas, [torch.tensor([[1, 0]]), torch.tensor([[0]])], anchors, [(50, 80)])
    torch.testing.assert_close(boxes, torch.tensor([[[0.0, 0, 16, 16], [0, 5, 20, 25], [70, 20, 80, 40]]]))
    assert groups.tolist() == [[0, 0, 1]]


@both
def test_groups_tell_images_and_levels_apart(decode):
    groups = decode(*case((9, 5, 3), 3, 4))[1]
    assert groups.tolist() == [[3 * i] * 3 + [3 * i + 1] * 3 + [3 * i + 2] * 3 for i in range(4)]


@both
def test_growth_is_limited(decode):
    delta, anchor = torch.tensor([[[0.0, 0, 99, 99]]]), torch.tensor([[1000.0, 1000, 1016, 1016]])
    box = decode([delta], [torch.zeros(1, 1, dtype=torch.int64)], anchor, [(5000, 5000)])[0][0, 0]
    torch.testing.assert_close(box[2:] - box[:2], torch.full((2,), 1000.0))


@both
def test_clipped_boxes_have_the_least_size(decode):
    anchors = torch.tensor([[-30.0, -30, -10, -10], [100, 100, 120, 130]])
    arguments = [torch.zeros(1, 2, 4)], [torch.tensor([[0, 1]])], anchors, [(60, 50)]
    assert decode(*arguments)[0].tolist() == [[[0, 0, 0, 0], [50, 60, 50, 60]]]
    assert decode(*arguments, min_size=1)[0].tolist() == [[[0, 0, 1, 1], [49, 59, 50, 60]]]


@both
def test_a_delta_that_is_nan_gives_a_box_that_is_nan(decode):
    anchors = torch.tensor([[10.0, 10, 20, 20]])
    delta = torch.tensor([[[float("nan"), 0, 0, float("nan")]]])
    assert decode([delta], [torch.zeros(1, 1, dtype=torch.int64)], anchors, [(50, 50)])[0].isnan().all()


@pytest.mark.parametrize("view", ["transposed", "sliced"])
def test_any_strides(view):
    deltas, best, anchors, sizes = case()
    changed = {
        "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
        "sliced": lambda t: torch.cat([t, t], 1)[:, : t.shape[1]],
    }[view]
    got = decode_proposals(map(changed, deltas), map(changed, best), anchors.t().contiguous().t(), sizes)
    assert all(map(torch.equal, got, decode_proposals(deltas, best, anchors, sizes)))


def test_no_gradient():
    deltas, best, anchors, sizes = case()
    assert not decode_proposals([d.requires_grad_() for d in deltas], best, anchors, sizes)[0].requires_grad


@pytest.mark.parametrize("index", [-1, 12])
def test_an_anchor_that_is_not_there_is_an_error(index):
    deltas, best, anchors, sizes = case()
    best[1][1, 2] = index
    with pytest.raises(
        (RuntimeError, IndexError), match=None if CPU_MISSING else rf"best\[1\] must lie in 0..11, got {index}"
    ):
        decode_proposals(deltas, best, anchors, sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deltas": []}, "deltas must hold 1 to 8 levels, got 0"),
        ({"deltas": None}, "deltas must be a list of tensors, got None"),
        ({"deltas": [torch.zeros(2, 5, 4)]}, "best must hold one tensor for each of 1 levels, got 2"),
        (
            {"deltas": [torch.zeros(2, 5, 4), torch.zeros(2, 3)]},
            r"deltas\[1\] must have shape \[2, A, 4\], got \[2, 3\]",
        ),
        (
            {"deltas": [torch.zeros(2, 5, 4), torch.zeros(1, 3, 4)]},
            r"deltas\[1\] must have shape \[2, A, 4\], got \[1, 3, 4\]",
        ),
        ({"deltas": [torch.zeros(4), torch.zeros(1)]}, r"deltas\[0\] must have shape \[N, A, 4\], got \[4\]"),
        (
            {"deltas": [torch.zeros(2, 5, 4, dtype=torch.int64)] * 2},
            r"deltas\[0\] must be float32, float64, float16 or bfloat16, got torch.int64",
        ),
        ({"best": [torch.zeros(2, 3)] * 2}, r"best\[0\] must be int64 \[2, k\], got torch.float32 \[2, 3\]"),
        ({"best": [torch.zeros(2, 3).long()] * 3}, "best must hold one tensor for each of 2 levels, got 3"),
        (
            {"best": [torch.zeros(2, 3, device="meta").long()] * 2},
            r"best\[0\] must be on cpu, as the anchors, got meta",
        ),
        ({"anchors": torch.zeros(7, 4)}, r"anchors must be torch.float32 \[8, 4\], got torch.float32 \[7, 4\]"),
        ({"anchors": torch.zeros(8, 4).double()}, r"anchors must be torch.float32 \[8, 4\], got torch.float64"),
        ({"image_sizes": [(9, 9)]}, "image_sizes must hold one size for each of 2 images, got 1"),
        ({"image_sizes": [(9, 9), (0, 9)]}, r"image_sizes\[1\] must be positive .height, width., got \(0, 9\)"),
        ({"min_size": 2}, "min_size must be 0 or 1, got 2"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {
        "deltas": [torch.zeros(2, 5, 4), torch.zeros(2, 3, 4)],
        "best": [torch.zeros(2, 3, dtype=torch.int64)] * 2,
        "anchors": torch.zeros(8, 4),
        "image_sizes": [(9, 9), (8, 8)],
    }
    with pytest.raises(ValueError, match=f"^decode_proposals: {message}"):
        decode_proposals(**arguments | change)
