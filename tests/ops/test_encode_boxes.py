"""encode_boxes: regression targets from references to their matched ground-truth boxes."""

import pytest
import torch

from rpcnn.ops import encode_boxes, encode_boxes_reference
from rpcnn.ops._library import CPU_MISSING

both = pytest.mark.parametrize("encode", [encode_boxes, encode_boxes_reference], ids=["op", "reference"])


def random_boxes(n, dtype=torch.float32):
    corner = 100 * torch.rand(n, 2, dtype=dtype)
    return torch.cat([corner, corner + 1 + 50 * torch.rand(n, 2, dtype=dtype)], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "people"), [(0, 0), (0, 3), (5, 0), (1, 1), (300, 17)])
def test_equals_reference(n, people, dtype):
    matched = torch.randint(-2, people, (n,))
    arguments = random_boxes(people, dtype), random_boxes(n, dtype), matched, (10, 5)
    got = encode_boxes(*arguments)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(got, encode_boxes_reference(*arguments), **tolerance)
    assert (got[matched < 0] == 0).all()


@both
def test_by_hand(encode):
    # Reference 10 x 20 centered at (5, 10); box 20 x 20 centered at (10, 15).
    boxes, reference = torch.tensor([[9.0, 9, 9, 9], [0, 5, 20, 25]]), torch.tensor([[0.0, 0, 10, 20]])
    deltas = encode(boxes, reference, torch.tensor([1]), (10, 5))
    torch.testing.assert_close(deltas, torch.tensor([[5.0, 2.5, 5 * 0.6931472, 0.0]]))


@both
def test_an_unmatched_reference_without_area_has_no_target(encode):
    assert encode(random_boxes(1), torch.zeros(2, 4), torch.tensor([-1, -2])).tolist() == [[0] * 4] * 2


def test_any_strides_and_no_gradient():
    boxes, references, matched = random_boxes(3).requires_grad_(), random_boxes(8), torch.randint(-1, 3, (8,))
    turned = [t.t().contiguous().t() for t in (boxes, references)]
    got = encode_boxes(*turned, matched.repeat_interleave(2)[::2])
    assert torch.equal(got, encode_boxes(boxes, references, matched)) and not got.requires_grad


@both
def test_a_match_that_is_not_there_is_an_error(encode):
    message = "matched must be less than 3, got 3" if encode is encode_boxes and not CPU_MISSING else None
    with pytest.raises((RuntimeError, IndexError), match=message):
        encode(random_boxes(3), random_boxes(2), torch.tensor([0, 3]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gt_boxes": None}, "gt_boxes must be a tensor, got None"),
        ({"gt_boxes": torch.zeros(2, 3)}, r"gt_boxes must have shape \[n, 4\], got \[2, 3\]"),
        ({"gt_boxes": torch.zeros(2, 4).double()}, "gt_boxes must be torch.float32 on cpu, got torch.float64"),
        ({"references": torch.zeros(3, 4).half()}, "references must be float32 or float64, got torch.float16"),
        ({"matched": torch.zeros(3)}, r"matched must be int64 \[3\] on cpu, got torch.float32 \[3\]"),
        ({"matched": torch.zeros(2).long()}, r"matched must be int64 \[3\] on cpu, got torch.int64 \[2\]"),
        ({"weights": (1.0,)}, "weights must be two numbers, got 1"),
        ({"weights": (1.0, "2")}, "weights must be a number, got '2'"),
        ({"weights": 3}, "weights must be two numbers, got 3"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"gt_boxes": torch.zeros(2, 4), "references": torch.zeros(3, 4), "matched": torch.zeros(3).long()}
    with pytest.raises(ValueError, match=f"^encode_boxes: {message}"):
        encode_boxes(**arguments | change)
