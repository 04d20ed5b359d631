"""encode_boxes against PyTorch's ops: the targets of 512 boxes and six people.

    pytest benchmarks/bench_encode_boxes.py --benchmark-only

Bytes: boxes and matches read, targets written.
"""

import pytest
import torch
from measure import DEVICES, Case, Comparison, assert_close, bench, size_of

from rpcnn.ops import encode_boxes, encode_boxes_reference


def matched_boxes(device):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(518, 2, generator=generator) * 700
    boxes = torch.cat([corner, corner + 20 + 200 * torch.rand(518, 2, generator=generator)], 1).to(device)
    matched = torch.randint(-1, 6, (512,), generator=generator).to(device)
    arguments = boxes[:6], boxes[6:], matched, (10.0, 5.0)
    ours, baseline = (lambda f=f: f(*arguments) for f in (encode_boxes, encode_boxes_reference))
    check = lambda: assert_close(ours(), baseline(), 1e-5, 1e-5)
    return Comparison(ours, baseline, check, size_of(*arguments[:3]) + size_of(boxes[6:]), calls=20)


CASES = [Case("encode_boxes", "512 boxes, 6 people", matched_boxes)]
COST = {"rpcnn::encode_boxes": lambda *_: (1, 0, 0)}  # see static.py


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_encode_boxes(benchmark, case, device):
    bench(benchmark, case, device)
