"""The CUDA kernels of draw_samples, executed by the emulator."""

import pytest
import torch
from helpers import emulator

from rpcnn.ops import draw_samples_reference
from rpcnn.ops.match_boxes import BACKGROUND, IGNORED


def emulated(matched, keys, count, max_positive, negatives=True):
    """The steps of csrc/cuda/draw_samples.cu."""
    n, size = len(matched), min(count, len(matched))
    unsorted = torch.empty(n, dtype=torch.int32)
    emulator.call("sample_keys", matched, keys, n, negatives, unsorted)
    ordered, indices = unsorted.sort(stable=True)
    samples, people = torch.full((size,), -9), torch.full((size,), -9)
    emulator.call("take_samples", ordered, indices, matched, n, size, max_positive, samples, people)
    return samples, people


def kinds(n):
    return torch.tensor([IGNORED, BACKGROUND, BACKGROUND, 0, 5])[torch.randint(0, 5, (n,))]


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("negatives", [True, False])
@pytest.mark.parametrize(
    ("n", "count", "max_positive"), [(0, 3, 1), (1, 1, 1), (700, 300, 40), (500, 500, 300), (9, 20, 20)]
)
def test_equals_reference(n, count, max_positive, negatives, order):
    emulator.schedule(order)
    arguments = kinds(n), torch.rand(n), count, max_positive, negatives
    assert all(map(torch.equal, emulated(*arguments), draw_samples_reference(*arguments)))


@pytest.mark.parametrize("kind", [IGNORED, BACKGROUND, 2])
def test_boxes_of_one_kind(kind):
    arguments = torch.full((40,), kind), torch.rand(40), 30, 8
    assert all(map(torch.equal, emulated(*arguments), draw_samples_reference(*arguments)))


def test_keys_that_are_equal_or_beyond_the_range():
    nan, inf = float("nan"), float("inf")
    keys = torch.tensor([0.5, -1.0, nan, 0.0, 0.5, inf, 0.99999994, -0.0, -inf, 1.0, 3.0, 0.5])
    for matched in (torch.full((12,), BACKGROUND), torch.full((12,), 1)):
        assert emulated(matched, keys, 12, 12)[0].tolist() == [1, 3, 7, 8, 0, 4, 11, 6, 2, 5, 9, 10]
