"""roi_align and multilevel_roi_align against torchvision, at the paper's shapes and around them.

    pytest benchmarks/bench_roi_align.py --benchmark-only

Bytes: forward, the maps (for 512 boxes nearly all of them are touched) and the output; backward, the output's gradient
and every map gradient. Both sides get the same tensor in the same layout.
"""

import pytest
import torch
import torchvision
from measure import DEVICES, LAYOUTS, Case, Comparison, assert_close, bench, pyramid, size_of

from rpcnn.ops import multilevel_roi_align, roi_align

MAP = (200, 304)  # P2 of an 800×1216 image
LEVELS = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]
BOX, PARSING = (512, 7), (32, 32)  # RoIs and cells a side of the two branches


def people(count, images=2, size=(800, 1216)):
    """Boxes of people, twice as high as wide, 60 to 460 pixels high in an image 800 pixels high."""
    generator = torch.Generator().manual_seed(0)
    height = size[0] / 800 * (60 + 400 * torch.rand(count, 1, generator=generator))
    extent = torch.cat([height * (0.3 + 0.4 * torch.rand(count, 1, generator=generator)), height], 1)
    limit = torch.tensor([size[1], size[0]]) - extent
    corner = torch.rand(count, 2, generator=generator) * limit.clamp(min=0)
    index = torch.arange(count)[:, None] * images // count
    return torch.cat([index.float(), corner, corner + extent], 1)


def forward(count, size, layout, dtype=torch.float32, sampling_ratio=2, channels=256, extent=MAP, calls=1):
    def make(device):
        (feature,) = pyramid(2, channels, [extent], layout, device, dtype)
        boxes = people(count, size=(4 * extent[0], 4 * extent[1])).to(device)
        # torchvision has no bfloat16 on the CPU: there its half precision is the peer.
        baseline = feature.half() if dtype is torch.bfloat16 and device == "cpu" else feature
        arguments = size, 0.25, sampling_ratio, True
        ours = lambda: roi_align(feature, boxes, *arguments)
        peer = lambda: torchvision.ops.roi_align(baseline, boxes.to(baseline.dtype), *arguments)
        exact = lambda: torchvision.ops.roi_align(feature.float(), boxes, *arguments)
        tolerance = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
        check = lambda: assert_close(ours().float(), exact(), tolerance, tolerance)
        moved = size_of(feature) + count * channels * size * size * feature.element_size()
        moved = moved if count >= 16 else 0  # fewer boxes read a corner of the map
        return Comparison(ours, peer, check, moved, calls)

    return make


def backward(count, size, layout):
    def make(device):
        (feature,) = pyramid(2, 256, [MAP], layout, device, requires_grad=True)
        boxes = people(count).to(device)
        mine = roi_align(feature, boxes, size, 0.25, 2, True)
        theirs = torchvision.ops.roi_align(feature, boxes, size, 0.25, 2, True)
        grad = torch.randn_like(mine)
        run = lambda out: torch.autograd.grad(out, feature, grad, retain_graph=True)[0]
        ours, peer = lambda: run(mine), lambda: run(theirs)
        return Comparison(ours, peer, lambda: assert_close(ours(), peer(), 1e-3, 1e-3), size_of(feature, grad))

    return make


def multilevel(count, with_backward):
    def make(device):
        maps = pyramid(2, 256, LEVELS, "channels_last", device, requires_grad=with_backward)
        boxes = people(count).to(device)
        pooler = torchvision.ops.MultiScaleRoIAlign([str(i) for i in range(5)], 7, 2)
        listed = [boxes[boxes[:, 0] == n, 1:] for n in range(2)]
        named = {str(i): m for i, m in enumerate(maps)}
        grad = torch.randn(count, 256, 7, 7, device=device).to(memory_format=torch.channels_last)
        gradients = lambda out: [out, *torch.autograd.grad(out, maps, grad)] if with_backward else [out]
        # torchvision never shifts by half a pixel here.
        ours = lambda: gradients(multilevel_roi_align(maps, boxes, 7, SCALES, 2, False))
        peer = lambda: gradients(pooler(named, listed, [(800, 1216)] * 2))
        moved = (2 if with_backward else 1) * size_of(*maps, grad)
        return Comparison(ours, peer, lambda: assert_close(ours(), peer(), 1e-3, 1e-3), moved)

    return make


def title(branch, what, layout):
    count, size = branch
    return f"{what}, {count} RoIs {size}×{size}, {layout}"


CASES = [Case("roi_align", title(b, "forward", m), forward(*b, m)) for b in (BOX, PARSING) for m in LAYOUTS]
CASES += [Case("roi_align", title(b, "backward", m), backward(*b, m)) for b in (BOX, PARSING) for m in LAYOUTS]
NHWC = "channels_last"
VARIANTS = {
    "forward, adaptive sampling": forward(*BOX, NHWC, sampling_ratio=-1),
    "forward, float16": forward(*BOX, NHWC, torch.float16),
    "forward, bfloat16 (peer: float16)": forward(*BOX, NHWC, torch.bfloat16),
}
CASES += [Case("roi_align", title(BOX, name, NHWC), make) for name, make in VARIANTS.items()]
# The peer brings a channels_last map to the other layout first, even for one box.
CALLS = {"contiguous": 100, "channels_last": 4}
CASES += [Case("roi_align", title((1, 7), "forward", m), forward(1, 7, m, calls=n)) for m, n in CALLS.items()]
CASES += [
    Case("multilevel_roi_align", f"{what}, 1024 RoIs 7×7, five levels, {NHWC}", multilevel(1024, "+" in what))
    for what in ("forward", "forward + backward")
]
CASES += [
    Case("roi_align", f"forward by RoIs: {count}", forward(count, 7, NHWC), sweep=True) for count in (16, 64, 256, 1024)
]
CASES += [
    Case("roi_align", f"forward by channels: {c}", forward(*BOX, NHWC, channels=c), sweep=True)
    for c in (32, 64, 128, 512)
]
CASES += [
    Case("roi_align", f"forward by map height: {h}", forward(*BOX, NHWC, extent=(h, h * 3 // 2)), sweep=True)
    for h in (50, 100, 200)
]


def contiguous_copy(t) -> tuple[int, int]:
    """Launches and bytes of the copy that torchvision's kernels make of a channels-last map."""
    return (0, 0) if t.is_contiguous() else (1, 2 * size_of(t))


def peer_roi_align(maps, *_):
    launches, copied = contiguous_copy(maps)
    return 1 + launches, copied, 0


def peer_roi_align_backward(grad, boxes, scale, height, width, batch, channels, map_height, map_width, *_):
    launches, copied = contiguous_copy(grad)  # then zeros, then additions in memory: the map once more in and out
    return 2 + launches, copied + 2 * batch * channels * map_height * map_width * grad.element_size(), 0


COST = {  # see static.py
    "rpcnn::roi_align": lambda *a: (1, 0, 0),
    "rpcnn::roi_align_backward": lambda *a: (2, 0, 0),
    "rpcnn::multilevel_roi_align": lambda *a: (1, 0, 0),
    "rpcnn::multilevel_roi_align_backward": lambda *a: (2, 0, 0),
    "torchvision::roi_align": peer_roi_align,
    "torchvision::_roi_align_backward": peer_roi_align_backward,
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_roi_align(benchmark, case, device):
    bench(benchmark, case, device)
