"""The detector's small operators, valid calls against the references."""

from random import Random

import torch

from rpcnn import ops

EDGES = (float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 0.0)


def valid(r: Random) -> None:
    """The kernel gives what the reference gives."""
    r.choice([_anchors, _proposals, _matches, _samples, _targets])(r)


def _boxes(r: Random, count: int, dtype=torch.float32, edges: bool = True) -> torch.Tensor:
    """Boxes [count, 4] on a grid of quarters, so that overlaps and ties are common; some of `edges`."""
    generator = torch.Generator().manual_seed(r.getrandbits(60))
    corner = torch.randint(-20, 120, (count, 2), generator=generator) / 4
    size = torch.randint(-1 if edges else 1, 80, (count, 2), generator=generator) / r.choice([1, 4])
    boxes = torch.cat([corner, corner + size], 1).to(dtype)
    if edges and count and r.random() < 0.3:
        boxes[r.randrange(count), r.randrange(4)] = r.choice(EDGES)
    return boxes


def _same(op: str, got, want) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b), f"{op} differs"


def _anchors(r: Random) -> None:
    dtype, levels, ratios = r.choice([torch.float32, torch.float64]), r.randint(1, 8), r.randint(1, 4)
    generator = torch.Generator().manual_seed(r.getrandbits(60))
    cells = torch.randn(levels, ratios, 4, generator=generator, dtype=dtype) * 100
    strides = [r.choice([1, 3, 4, 8, 64, 1000]) for _ in range(levels)]
    sizes = [(r.randint(1, 40), r.randint(1, 40)) for _ in range(levels)]
    _same(
        "grid_anchors",
        [ops.grid_anchors(cells, strides, sizes)],
        [ops.grid_anchors_reference(cells, strides, sizes)],
    )


def _proposals(r: Random) -> None:
    images, levels, dtype = r.choice([0, 1, 2, 5]), r.randint(1, 8), r.choice([torch.float32, torch.float64])
    generator = torch.Generator().manual_seed(r.getrandbits(60))
    counts = [r.randint(1, 40) for _ in range(levels)]
    spread = r.choice([0.1, 1.0, 30.0])
    deltas = [spread * torch.randn(images, count, 4, generator=generator, dtype=dtype) for count in counts]
    if dtype == torch.float32 and r.random() < 0.4:
        half = r.choice([torch.bfloat16, torch.float16])
        deltas = [delta.to(half) for delta in deltas]
    best = [
        torch.randint(0, count, (images, r.choice([0, 1, 9])), generator=generator) if count else torch.zeros(images, 0)
        for count in counts
    ]
    anchors = _boxes(r, sum(counts), dtype, edges=False)
    sizes = [(r.randint(1, 60), r.randint(1, 60)) for _ in range(images)]
    least = r.choice([0, 1])
    got = ops.decode_proposals(deltas, best, anchors, sizes, least)
    want = ops.decode_proposals_reference(deltas, best, anchors, sizes, least)
    torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-3)
    _same("decode_proposals", got[1:], want[1:])


def _matches(r: Random) -> None:
    dtype = r.choice([torch.float32, torch.float64])
    boxes, truth = (_boxes(r, r.choice(counts), dtype) for counts in ((0, 1, 40, 700), (0, 1, 3, 33, 70)))
    positive = r.choice([0.0, 0.3, 0.5, 1.0])
    rule = positive, r.choice([0.0, positive]), r.random() < 0.5, r.choice([None, (20, 30), (60, 60)])
    _same("match_boxes", [ops.match_boxes(boxes, truth, *rule)], [ops.match_boxes_reference(boxes, truth, *rule)])


def _samples(r: Random) -> None:
    count = r.choice([0, 1, 5, 300, 5000])
    generator = torch.Generator().manual_seed(r.getrandbits(60))
    matched = torch.randint(-r.choice([1, 2, 3, 9]), r.choice([0, 1, 4]), (count,), generator=generator)
    keys = torch.rand(count, generator=generator)
    if r.random() < 0.5:
        keys = (keys * r.choice([1, 4])).round() / 4  # ties
    if count and r.random() < 0.3:
        keys[r.randrange(count)] = r.choice(EDGES)
    rule = r.choice([0, 1, 64, 10_000]), r.choice([0, 1, 32, 10_000]), r.random() < 0.8
    _same("draw_samples", ops.draw_samples(matched, keys, *rule), ops.draw_samples_reference(matched, keys, *rule))


def _targets(r: Random) -> None:
    dtype, count, people = r.choice([torch.float32, torch.float64]), r.choice([0, 1, 50]), r.choice([1, 3, 40])
    references, truth = (_boxes(r, rows, dtype, edges=False) for rows in (count, people))
    generator = torch.Generator().manual_seed(r.getrandbits(60))
    matched = torch.randint(-2, people, (count,), generator=generator)
    weights = r.choice([(1.0, 1.0), (10.0, 5.0), (0.0, -2.0)])
    torch.testing.assert_close(
        ops.encode_boxes(truth, references, matched, weights),
        ops.encode_boxes_reference(truth, references, matched, weights),
        rtol=1e-5,
        atol=1e-5,
    )
