"""Boxes of the detector: overlap, coder, anchors, sampling."""

import torch

from rpcnn.box_convention import EDGES
from rpcnn.model.boxes import (
    BACKGROUND,
    IGNORED,
    box_iou,
    cell_anchors,
    decode_boxes,
    draw_samples,
)
from rpcnn.ops import encode_boxes


def random_boxes(n: int, size: float = 200) -> torch.Tensor:
    corner, extent = torch.rand(n, 2) * size, torch.rand(n, 2) * size + 1
    return torch.cat([corner, corner + extent], dim=1)


def test_anchors_of_the_first_cell():
    # Widths and heights of the R-CNN line; with exclusive ends, the cell of stride s is centered at s / 2.
    expected = {
        (4, 32): [(-22, -10, 26, 14), (-14, -14, 18, 18), (-10, -22, 14, 26)],
        (8, 64): [(-40, -20, 48, 28), (-28, -28, 36, 36), (-20, -44, 28, 52)],
        (16, 128): [(-84, -40, 100, 56), (-56, -56, 72, 72), (-36, -80, 52, 96)],
        (32, 256): [(-164, -72, 196, 104), (-112, -112, 144, 144), (-76, -168, 108, 200)],
        (64, 512): [(-332, -152, 396, 216), (-224, -224, 288, 288), (-148, -328, 212, 392)],
    }
    for (stride, size), boxes in expected.items():
        assert cell_anchors(size, stride).tolist() == [list(box) for box in boxes]


def test_decode_inverts_encode():
    boxes, references = random_boxes(50), random_boxes(50)
    for weights in ((1.0, 1.0), (10.0, 5.0)):
        deltas = encode_boxes(boxes, references, torch.arange(50), weights)
        torch.testing.assert_close(decode_boxes(deltas, references, weights), boxes, rtol=1e-5, atol=1e-3)


def test_decode_limits_growth():
    box = decode_boxes(torch.tensor([[0.0, 0, 99, 99]]), torch.tensor([[0.0, 0, 16, 16]]))
    torch.testing.assert_close(box[0, 2:] - box[0, :2], torch.full((2,), 1000.0))


def test_iou_by_hand():
    a = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 9]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [5, 5, 5, 9]])
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[1, 1 / 3, 0, 0], [0, 0, 0, 0]]))


def test_clip_cuts_to_the_image():
    clipped = EDGES.clip(torch.tensor([[-5.0, 3, 30, 40], [25, 25, 28, 30]]), (20, 24))
    assert clipped.tolist() == [[0, 3, 24, 20], [24, 20, 24, 20]]


def test_sampling_counts_and_kinds():
    matched = torch.tensor([0] * 30 + [BACKGROUND] * 100 + [IGNORED] * 50 + [2] * 10)
    samples, people = draw_samples(matched, 40, 0.25, None)
    assert torch.equal(people, matched[samples]) and len(samples.unique()) == 40
    assert (matched[samples[:10]] >= 0).all() and (matched[samples[10:]] == BACKGROUND).all()
    # Too few positives: negatives fill up.
    samples, _ = draw_samples(matched[28:100], 40, 0.5, None)
    assert (matched[28:100][samples] >= 0).tolist() == [True] * 2 + [False] * 38


def test_too_few_boxes_leave_samples_out():
    matched = torch.tensor([IGNORED, 3, BACKGROUND, IGNORED, BACKGROUND])
    samples, people = draw_samples(matched, 4, 0.5, None)
    assert samples[0] == 1 and samples[1:].sort().values.tolist() == [2, 4]
    assert people.tolist() == [3, BACKGROUND, BACKGROUND]


def test_samples_are_drawn_evenly():
    matched = torch.tensor([BACKGROUND, 0, 0, IGNORED, BACKGROUND, BACKGROUND])
    draws = torch.stack([draw_samples(matched, 2, 0.5, None)[0] for _ in range(2000)])
    torch.testing.assert_close(
        draws.flatten().bincount() / 2000, torch.tensor([2, 3, 3, 0, 2, 2]) / 6, atol=0.05, rtol=0
    )


def test_sampling_depends_on_the_seed_alone():
    matched = torch.tensor([0] * 50 + [BACKGROUND] * 200)

    def drawn(seed):
        return draw_samples(matched, 32, 0.5, torch.Generator().manual_seed(seed))[0]

    first = drawn(1)
    torch.rand(10)  # the global random state does not matter
    assert torch.equal(first, drawn(1))
    assert not torch.equal(first, drawn(2))
