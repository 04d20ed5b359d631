"""roi_align and multilevel_roi_align against torchvision, at the paper's shapes and around them.

    pytest benchmarks/bench_roi_align.py --benchmark-only

Bytes: forward, the maps (512 boxes read nearly all of their pixels) and the output; backward, the output's gradient and
every map gradient. Both sides get the same tensor in the same memory format.
"""

import pytest
import torch
import torchvision
from measure import DEVICES, LAYOUTS, Case, Comparison, assert_close, bench, pyramid, size_of

from rpcnn.ops import multilevel_roi_align, roi_align

MAP = (200, 304)  # P2 of an 800×1216 image
LEVELS = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]
BOX, PARSING = (512, 7), (32, 32)  # number of RoIs and output size of the two branches


def people(count, images=2, size=(800, 1216)):
    """Make person-shaped boxes [R, 5], about twice as high as wide, 60 to 460 pixels high for an 800-pixel image."""
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
        # torchvision has no bfloat16 on the CPU: there the baseline runs in float16.
        baseline_input = feature.half() if dtype is torch.bfloat16 and device == "cpu" else feature
        arguments = size, 0.25, sampling_ratio, True
        ours = lambda: roi_align(feature, boxes, *arguments)
        baseline = lambda: torchvision.ops.roi_align(baseline_input, boxes.to(baseline_input.dtype), *arguments)
        exact = lambda: torchvision.ops.roi_align(feature.float(), boxes, *arguments)
        tolerance = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
        check = lambda: assert_close(ours().float(), exact(), tolerance, tolerance)
        moved = size_of(feature) + count * channels * size * size * feature.element_size()
        moved = moved if count >= 16 else 0  # fewer boxes read a corner of the map
        return Comparison(ours, baseline, check, moved, calls)

    return make


def backward(count, size, layout):
    def make(device):
        (feature,) = pyramid(2, 256, [MAP], layout, device, requires_grad=True)
        boxes = people(count).to(device)
        output = roi_align(feature, boxes, size, 0.25, 2, True)
        baseline_output = torchvision.ops.roi_align(feature, boxes, size, 0.25, 2, True)
        grad = torch.randn_like(output)
        run = lambda out: torch.autograd.grad(out, feature, grad, retain_graph=True)[0]
        ours, baseline = lambda: run(output), lambda: run(baseline_output)
        return Comparison(ours, baseline, lambda: assert_close(ours(), baseline(), 1e-3, 1e-3), size_of(feature, grad))

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
        # torchvision's pooler has aligned=False.
        ours = lambda: gradients(multilevel_roi_align(maps, boxes, 7, SCALES, 2, False))
        baseline = lambda: gradients(pooler(named, listed, [(800, 1216)] * 2))
        moved = (2 if with_backward else 1) * size_of(*maps, grad)
        return Comparison(ours, baseline, lambda: assert_close(ours(), baseline(), 1e-3, 1e-3), moved)

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
    "forward, bfloat16 (baseline: float16)": forward(*BOX, NHWC, torch.bfloat16),
}
CASES += [Case("roi_align", title(BOX, name, NHWC), make) for name, make in VARIANTS.items()]
# Fewer calls with channels_last: torchvision makes a contiguous copy of the map first, even for one box.
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
    """Count launches and bytes of the contiguous copy that torchvision makes of a channels_last map."""
    return (0, 0) if t.is_contiguous() else (1, 2 * size_of(t))


def baseline_roi_align(maps, *_):
    launches, copied = contiguous_copy(maps)
    return 1 + launches, copied, 0


def baseline_roi_align_backward(grad, boxes, scale, height, width, batch, channels, map_height, map_width, *_):
    launches, copied = contiguous_copy(grad)  # then zeros and atomic additions: the map is read and written once more
    return 2 + launches, copied + 2 * batch * channels * map_height * map_width * grad.element_size(), 0


COST = {  # see static.py
    "rpcnn::roi_align": lambda *a: (1, 0, 0),
    "rpcnn::roi_align_backward": lambda *a: (2, 0, 0),
    "rpcnn::multilevel_roi_align": lambda *a: (1, 0, 0),
    "rpcnn::multilevel_roi_align_backward": lambda *a: (2, 0, 0),
    "torchvision::roi_align": baseline_roi_align,
    "torchvision::_roi_align_backward": baseline_roi_align_backward,
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_roi_align(benchmark, case, device):
    bench(benchmark, case, device)
