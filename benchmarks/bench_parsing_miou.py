"""parsing_miou against arg-max and bincount in PyTorch: RoIs of 20 classes, 128×128 pixels (Sec. 3.4).

    pytest benchmarks/bench_parsing_miou.py --benchmark-only

Bytes: the float32 logits and the uint8 target read once.
"""

import pytest
import torch
from measure import DEVICES, LAYOUTS, Case, Comparison, assert_close, bench, pyramid, size_of

from rpcnn.ops import parsing_miou

CLASSES, SIZE = 20, (128, 128)


def composition(logits, target):
    """Compute the mIoU with one bincount for the confusion matrices of all RoIs."""
    n, k = logits.shape[:2]
    truth = target.flatten(1).long()
    rows = torch.arange(n, device=logits.device)[:, None] * k
    pairs = (rows + truth) * k + logits.argmax(1).flatten(1)
    confusion = torch.bincount(pairs[truth < k], minlength=n * k * k).view(n, k, k).double()
    right = confusion.diagonal(dim1=1, dim2=2)
    union = confusion.sum(1) + confusion.sum(2) - right
    return ((right / union.clamp(min=1)).sum(1) / (union > 0).sum(1).clamp(min=1)).float()


def comparison(rois, layout, dtype=torch.float32, calls=1):
    def make(device):
        (logits,) = pyramid(rois, CLASSES, [SIZE], layout, device, dtype)
        # Labels are constant in patches, as parts are; a tenth of the pixels is ignored.
        generator = torch.Generator().manual_seed(1)
        target = torch.randint(0, CLASSES, (rois, 8, 8), generator=generator, dtype=torch.uint8)
        target = target.repeat_interleave(16, 1).repeat_interleave(16, 2)
        target[:, :13] = 255
        target = target.to(device)
        ours, baseline = lambda: parsing_miou(logits, target), lambda: composition(logits, target)
        check = lambda: assert_close(ours(), baseline(), 1e-6, 1e-7)
        return Comparison(ours, baseline, check, size_of(logits, target), calls)

    return make


CASES = [Case("parsing_miou", f"{n} RoIs, {m}", comparison(n, m)) for n in (16, 512) for m in LAYOUTS]
CASES += [Case("parsing_miou", "16 RoIs, bfloat16, contiguous", comparison(16, "contiguous", torch.bfloat16))]
CASES += [Case("parsing_miou", f"by RoIs: {n}", comparison(n, "contiguous"), sweep=True) for n in (1, 4, 64, 256)]


def cost(prediction, target, classes, *_):
    """Count two launches, and the sums of each piece of 1024 pixels or more written and read, see static.py."""
    pieces = -(-target[0].numel() // max(1024, 12 * classes)) if len(target) else 0
    return 2, 2 * len(target) * pieces * 3 * classes * 4, 0


COST = {"rpcnn::parsing_miou": cost}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parsing_miou(benchmark, case, device):
    bench(benchmark, case, device)
