"""parsing_loss against cross entropy, bincount, softmax and max_pool2d in PyTorch: RoIs of 20 classes, 128×128 pixels.

    pytest benchmarks/bench_parsing_loss.py --benchmark-only

Bytes: forward, the logits and the labels read, the pooled probabilities written; backward, the logits, the labels and
the gradient of the pooled probabilities read, the gradient of the logits written.
"""

import pytest
import torch
import torch.nn.functional as F
from bench_parsing_miou import CLASSES, SIZE
from bench_parsing_miou import composition as miou_by_bincount
from measure import DEVICES, LAYOUTS, Case, Comparison, assert_close, bench, pyramid, size_of

from rpcnn.ops import parsing_loss

POOL = 4


def composition(logits, target, pool, pool_logits=False):
    """Compute the same with PyTorch's ops, in the memory format of the logits."""
    known = target < logits.shape[1]
    labels = torch.where(known, target, 255).long()
    loss = F.cross_entropy(logits.float(), labels, ignore_index=255, reduction="sum")
    maps = logits
    if not pool_logits:  # softmax over dim 1 would not keep channels_last
        last = logits.stride(1) == 1
        maps = logits.float().movedim(1, -1).softmax(-1).movedim(-1, 1) if last else logits.float().softmax(1)
    pooled = F.max_pool2d(maps, pool).to(logits.dtype)
    return loss, known.flatten(1).sum(1), miou_by_bincount(logits.detach(), target), pooled


def inputs(rois, layout, dtype, device):
    (logits,) = pyramid(rois, CLASSES, [SIZE], layout, device, dtype)
    # Labels are constant in patches, as parts are; a tenth of the pixels is ignored.
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, CLASSES, (rois, 8, 8), generator=generator, dtype=torch.uint8)
    target = target.repeat_interleave(16, 1).repeat_interleave(16, 2)
    target[:, :13] = 255
    return logits, target.to(device)


def forward(rois, layout, dtype=torch.float32):
    def make(device):
        logits, target = inputs(rois, layout, dtype, device)
        ours, baseline = lambda: parsing_loss(logits, target, POOL), lambda: composition(logits, target, POOL)
        check = lambda: assert_close(ours()[:3], baseline()[:3], 1e-4, 1e-5)
        return Comparison(ours, baseline, check, size_of(logits, target) + size_of(logits) // POOL**2)

    return make


def backward(rois, layout, dtype=torch.float32):
    def make(device):
        logits, target = inputs(rois, layout, dtype, device)
        logits.requires_grad_()
        outputs, baseline_outputs = parsing_loss(logits, target, POOL), composition(logits, target, POOL)
        grads = [torch.tensor(1e-3, device=device), torch.full_like(outputs[3], 0.5)]
        run = lambda outputs: torch.autograd.grad(outputs[::3], logits, grads, retain_graph=True)[0]
        ours, baseline = lambda: run(outputs), lambda: run(baseline_outputs)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2
        check = lambda: assert_close(ours(), baseline(), tolerance, tolerance)
        return Comparison(ours, baseline, check, size_of(logits, logits, target) + size_of(logits) // POOL**2)

    return make


CASES = [Case("parsing_loss", f"forward, 16 RoIs, {m}", forward(16, m)) for m in LAYOUTS]
CASES += [Case("parsing_loss", f"backward, 16 RoIs, {m}", backward(16, m)) for m in LAYOUTS]
CASES += [
    Case("parsing_loss", f"{name}, 32 RoIs, bfloat16, channels_last", make(32, "channels_last", torch.bfloat16))
    for name, make in (("forward", forward), ("backward", backward))
]


def cost(logits, target, pool, *_):
    """Count two launches, and the sums of each tile of 512 pixels written and read, see static.py."""
    rois, classes, height, width = logits.shape
    cells = min(width // pool, max(32, 512 // pool**2))
    tiles = height // pool * -(-(width // pool) // cells)
    return 2, 2 * rois * tiles * 4 * (3 * classes + 1), 0


COST = {"rpcnn::parsing_loss": cost, "rpcnn::parsing_loss_backward": lambda *a: (1, 0, 0)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parsing_loss(benchmark, case, device):
    bench(benchmark, case, device)
