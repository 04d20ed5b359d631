"""roi_align and multilevel_roi_align against torchvision, at the paper's shapes.

    pytest benchmarks/bench_roi_align.py --benchmark-only

Bytes: the least that must move in fp32; forward: the touched maps (119 of 124.5 MB for the box branch) and the output;
backward: the output's gradient and every map gradient.
"""

import pytest
import torch
import torchvision

from rpcnn.ops import multilevel_roi_align, roi_align

MAP = (2, 256, 200, 304)  # P2 of two 800×1216 images
CASES = {"box branch, 512 RoIs 7×7": (512, 7), "parsing branch, 32 RoIs 32×32": (32, 32)}
LEVELS = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]


def people(count, images=2, seed=0):
    """Boxes of people in 800×1216 pixels, twice as high as wide."""
    generator = torch.Generator().manual_seed(seed)
    height = 60 + 400 * torch.rand(count, 1, generator=generator)
    size = torch.cat([height * (0.3 + 0.4 * torch.rand(count, 1, generator=generator)), height], 1)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([1216.0, 800.0]) - size).clamp(min=0)
    index = torch.arange(count)[:, None] * images // count
    return torch.cat([index.float(), corner, corner + size], 1)


@pytest.fixture(scope="module", params=["channels_last", "contiguous"])
def feature(request):
    maps = torch.randn(MAP)
    return maps.to(memory_format=torch.channels_last) if request.param == "channels_last" else maps


@pytest.mark.parametrize("implementation", ["rpcnn", "torchvision"])
@pytest.mark.parametrize("case", CASES)
def test_forward(benchmark, feature, case, implementation):
    count, size = CASES[case]
    boxes = people(count)
    peer = lambda: torchvision.ops.roi_align(feature, boxes, size, 0.25, 2, True)
    mine = lambda: roi_align(feature, boxes, size, 0.25, 2, True)
    benchmark.group = f"roi_align forward, {case}, {layout(feature)}"
    benchmark.extra_info["bytes"] = 4 * (feature.numel() + count * MAP[1] * size * size)
    out = benchmark.pedantic(mine if implementation == "rpcnn" else peer, rounds=3, warmup_rounds=1)
    if implementation == "rpcnn":
        torch.testing.assert_close(out, peer(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["rpcnn", "torchvision"])
@pytest.mark.parametrize("case", CASES)
def test_backward(benchmark, feature, case, implementation):
    count, size = CASES[case]
    boxes, leaf = people(count), feature.clone(memory_format=torch.preserve_format).requires_grad_()
    mine = roi_align(leaf, boxes, size, 0.25, 2, True)
    grad = torch.randn_like(mine)
    benchmark.group = f"roi_align backward, {case}, {layout(feature)}"
    benchmark.extra_info["bytes"] = 4 * (feature.numel() + grad.numel())
    run = lambda out: torch.autograd.grad(out, leaf, grad, retain_graph=True)[0]
    if implementation == "rpcnn":
        got = benchmark.pedantic(run, (mine,), rounds=3, warmup_rounds=1)
        peer = torchvision.ops.roi_align(leaf, boxes, size, 0.25, 2, True)
        torch.testing.assert_close(got, run(peer), rtol=1e-3, atol=1e-3)
    else:
        peer = torchvision.ops.roi_align(leaf, boxes, size, 0.25, 2, True)
        benchmark.pedantic(run, (peer,), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("implementation", ["rpcnn", "torchvision"])
def test_multilevel_forward_and_backward(benchmark, implementation):
    maps = [torch.randn(2, 256, *size).to(memory_format=torch.channels_last).requires_grad_() for size in LEVELS]
    boxes = people(1024)
    pooler = torchvision.ops.MultiScaleRoIAlign([str(i) for i in range(5)], 7, 2)
    listed = [boxes[boxes[:, 0] == n, 1:] for n in range(2)]

    def peer():
        out = pooler({str(i): m for i, m in enumerate(maps)}, listed, [(800, 1216)] * 2)
        return out, torch.autograd.grad(out.sum(), maps)

    def mine():
        out = multilevel_roi_align(maps, boxes, 7, SCALES, 2, False)
        return out, torch.autograd.grad(out.sum(), maps)

    benchmark.group = "multilevel_roi_align forward + backward, 1024 RoIs 7×7, five levels, channels_last"
    out, _ = benchmark.pedantic(mine if implementation == "rpcnn" else peer, rounds=2, warmup_rounds=1)
    if implementation == "rpcnn":
        torch.testing.assert_close(out, peer()[0], rtol=1e-3, atol=1e-3)


def layout(maps):
    return "contiguous" if maps.is_contiguous() else "channels_last"
