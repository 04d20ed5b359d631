"""paste_parsing against its composition in PyTorch: person maps and the global map pasted into an 800×1066 image.

    pytest benchmarks/bench_paste_parsing.py --benchmark-only

Bytes: the maps read once, and per pixel one byte for each person, one for the label and four for the instance written.
The bottleneck is one interpolation and comparison per class for every pixel of every box and, with the global map, of
the image.
"""

import pytest
import torch
from measure import DEVICES, Case, Comparison, bench, size_of

from rpcnn.ops import paste_parsing, paste_parsing_reference

CLASSES, HEIGHT, WIDTH = 20, 800, 1066


def comparison(people, with_global):
    def make(device):
        generator = torch.Generator().manual_seed(0)
        probabilities = torch.randn(people, CLASSES, 128, 128, generator=generator).mul(4).softmax(1).to(device)
        height = 100 + 300 * torch.rand(people, 1, generator=generator)
        extent = torch.cat([0.5 * height, height], 1)
        corner = torch.rand(people, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - extent)
        boxes = torch.cat([corner, corner + extent], 1).to(device)
        painted = torch.ones(people, dtype=torch.bool, device=device)
        semantic = torch.randn(CLASSES, 200, 267, generator=generator).mul(4).softmax(0).to(device)
        semantic = semantic if with_global else None
        covered = (800.0, 1068.0)
        options = {"semantic": semantic, "semantic_size": covered, "semantic_weight": 0.2, "semantic_gate": 0.7}
        ours = lambda: paste_parsing(probabilities, boxes, (HEIGHT, WIDTH), painted, **options)
        arguments = (semantic, *covered, HEIGHT, WIDTH, 0.2, 0.7, True, True)
        baseline = lambda: paste_parsing_reference(probabilities, boxes, painted.byte(), *arguments)

        def check():
            for a, b in zip(ours(), baseline(), strict=True):
                assert (a != b).float().mean() < 1e-4

        moved = size_of(probabilities, *([semantic] if with_global else [])) + (people + 5) * HEIGHT * WIDTH
        return Comparison(ours, baseline, check, moved)

    return make


CASES = [
    Case(
        "paste_parsing",
        f"{people} people, {'with' if g else 'without'} the global map",
        comparison(people, g),
        rounds=3,
    )
    for people, g in ((20, True), (20, False), (1, False))
]

CASES += [Case("paste_parsing", f"by people: {n}", comparison(n, True), rounds=3, sweep=True) for n in (2, 5, 10, 40)]


COST = {"rpcnn::paste_parsing": lambda *a: (1, 0, 0)}  # see static.py


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_paste_parsing(benchmark, case, device):
    bench(benchmark, case, device)
