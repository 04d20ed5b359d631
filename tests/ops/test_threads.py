"""CPU kernels with concurrent calls, more threads than cores, and DataLoader workers."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.layouts import needs_kernels
from torch.utils.data import DataLoader, Dataset

from rpcnn.ops import nms, parsing_miou, roi_align, upsample_sum

pytestmark = needs_kernels


def call_all(seed):
    """Call ops that split their work in each way: by box, plane, row and group."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(1, 16, size, size, generator=generator) for size in (32, 16)]
    corner = torch.rand(300, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + 40 * torch.rand(300, 2, generator=generator)], 1)
    pooled = roi_align(maps[0], [boxes], 7, 0.25, 2, True)
    kept = nms(boxes, torch.rand(300, generator=generator), 0.5)
    target = torch.randint(0, 16, (1, 32, 32), generator=generator)
    return pooled, kept, upsample_sum(maps), parsing_miou(maps[0], target)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Calls(Dataset):
    """A data set that calls the ops in the worker."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return call_all(index)


@pytest.fixture
def threads():
    """Restore the number of threads after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_calls_from_several_threads_at_once():
    expected = [call_all(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, pool.map(call_all, range(8)), expected))


def test_more_threads_than_cores(threads):
    expected = call_all(0)
    torch.set_num_threads(16)
    assert same(call_all(0), expected)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_the_workers_of_a_loader(start):
    expected = [call_all(seed) for seed in range(6)]  # the parent's thread pool runs before the fork
    loader = DataLoader(Calls(), batch_size=None, num_workers=2, multiprocessing_context=start, timeout=120)
    assert all(map(same, loader, expected))
