"""The CUDA kernels of downsample_add, executed by the emulator."""

import pytest
import torch
from helpers import emulator
from helpers.layouts import LAYOUTS

from rpcnn.ops import downsample_add_reference


@pytest.mark.parametrize("dtype", emulator.DTYPES, ids=str)
@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [5, 8])
@pytest.mark.parametrize(
    "sizes",
    [
        [(8, 12), (8, 12), (4, 6), (2, 3)],
        [(7, 5), (4, 3), (13, 1)],  # a level larger than the feature: the kernel that searches
        [(9, 35), (9, 35), (8, 34), (5, 18), (2, 5), (1, 1)],  # partial blocks, ratios that are no power of two
    ],
)
def test_forward_and_backward(sizes, channels, layout, order, dtype):
    emulator.schedule(order)
    feature, *pyramid = (LAYOUTS[layout](torch.randn(2, channels, *size).to(dtype)) for size in sizes)
    heights, widths = [p.shape[2] for p in pyramid], [p.shape[3] for p in pyramid]
    outputs = [torch.full_like(p, torch.nan) for p in pyramid]
    shape = (*feature.shape, layout == "channels_last", len(pyramid), heights, widths)
    emulator.call("downsample_add", dtype, feature, *shape, pyramid, outputs)
    feature.requires_grad_()
    want = downsample_add_reference(feature, pyramid)
    for out, w in zip(outputs, want, strict=True):
        torch.testing.assert_close(out, w.detach(), **emulator.tolerance(dtype))

    grads = [torch.randn_like(p) for p in pyramid]
    grad_feature = torch.full_like(feature, torch.nan)
    emulator.call("downsample_add_backward", dtype, grad_feature, *shape, grads)
    expected = torch.autograd.grad(want, feature, grads)[0]
    torch.testing.assert_close(grad_feature, expected, **emulator.tolerance(dtype))


def readers(size: int, level: int) -> tuple[bool, int]:
    """Whether the gradient takes an axis of these sizes from tables of two readers, and the most readers of a pixel."""
    pairs, most = torch.zeros(2, dtype=torch.int64)
    emulator.call("downsample_add_readers", size, level, pairs, most)
    return bool(pairs), int(most)


def test_tables_of_two_readers_are_used_where_no_pixel_has_more():
    generator = torch.Generator().manual_seed(0)
    near = [(n + k, n) for n in (1, 2, 63, 512, 1023, 2047, 4095, 8191, 30000, 131000) for k in (0, 1, 2, 3)]
    drawn = [tuple(torch.randint(1, 5000, (2,), generator=generator).tolist()) for _ in range(100)]
    for size, level in near + drawn:
        pairs, most = readers(size, level)
        assert pairs == (level <= size) and (most <= 2 or not pairs), (size, level, most)
