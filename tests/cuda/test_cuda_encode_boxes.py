"""The CUDA kernel of encode_boxes, executed by the emulator."""

import pytest
import torch
from helpers import emulator

from rpcnn.ops import encode_boxes_reference


def random_boxes(n, dtype):
    corner = 100 * torch.rand(n, 2, dtype=dtype)
    return torch.cat([corner, corner + 1 + 50 * torch.rand(n, 2, dtype=dtype)], 1)


def emulated(gt_boxes, references, matched, weights):
    out = torch.full_like(references, torch.nan)
    sizes = (references, matched, len(references), *map(float, weights))
    emulator.call("encode_boxes", references.dtype, gt_boxes, len(gt_boxes), *sizes, out)
    return out


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "people"), [(0, 0), (5, 0), (1, 1), (300, 17)])
def test_equals_reference(n, people, dtype, order):
    emulator.schedule(order)
    arguments = random_boxes(people, dtype), random_boxes(n, dtype), torch.randint(-2, people, (n,)), (10, 5)
    torch.testing.assert_close(emulated(*arguments), encode_boxes_reference(*arguments), rtol=1e-5, atol=1e-5)


def test_a_match_that_is_not_there_gives_zeros():
    boxes = random_boxes(3, torch.float32)
    got = emulated(boxes, boxes, torch.tensor([0, 3, -1]), (1, 1))
    assert (got[1:] == 0).all() and got.isfinite().all()
