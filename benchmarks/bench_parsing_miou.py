"""parsing_miou against arg-max and bincount in PyTorch: RoIs of 20 classes, 128×128 pixels (Sec. 3.4).

    pytest benchmarks/bench_parsing_miou.py --benchmark-only

Bytes: the float32 logits and the uint8 target read once.
"""

import pytest
import torch
from measure import DEVICES, LAYOUTS, measure, pyramid, size_of

from rpcnn.ops import parsing_miou

ROIS = [16, 64]  # per image in training, and of four images
CLASSES, SIZE = 20, (128, 128)


def composition(logits, target):
    """The confusion matrix of every RoI from one bincount."""
    n, k = logits.shape[:2]
    truth = target.flatten(1).long()
    rows = torch.arange(n, device=logits.device)[:, None] * k
    pairs = (rows + truth) * k + logits.argmax(1).flatten(1)
    confusion = torch.bincount(pairs[truth < k], minlength=n * k * k).view(n, k, k).double()
    right = confusion.diagonal(dim1=1, dim2=2)
    union = confusion.sum(1) + confusion.sum(2) - right
    return ((right / union.clamp(min=1)).sum(1) / (union > 0).sum(1).clamp(min=1)).float()


CONTENDERS = {"rpcnn": parsing_miou, "torch": composition}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rois", ROIS)
@pytest.mark.parametrize("device", DEVICES)
def test_parsing_miou(benchmark, device, rois, layout, contender):
    benchmark.group = f"parsing_miou {rois} RoIs {layout} {device}"
    (logits,) = pyramid(rois, CLASSES, [SIZE], layout, device)
    # Labels come in patches, as they do on people; a tenth of the pixels is ignored.
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, CLASSES, (rois, 8, 8), generator=generator, dtype=torch.uint8)
    target = target.repeat_interleave(16, 1).repeat_interleave(16, 2)
    target[:, :13] = 255
    target = target.to(device)
    out = measure(benchmark, CONTENDERS[contender], logits, target, device=device, moved=size_of([logits, target]))
    if contender == "rpcnn":
        torch.testing.assert_close(out, composition(logits, target), rtol=1e-6, atol=1e-7)
