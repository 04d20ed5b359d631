"""Outlines of masks along pixel edges."""

import numpy as np
import pytest

from rpcnn.labelmaps.polygons import outlines


def filled(rings, shape):
    """The even-odd rule at the centers of pixels: how many edges in a column's direction lie left of each."""
    crossings = np.zeros(shape, int)
    for ring in rings:
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, 0), strict=True):
            assert (x1 == x2) != (y1 == y2)
            if x1 == x2:
                crossings[min(y1, y2) : max(y1, y2), x1:] += 1
    return crossings % 2 == 1


def area(ring):
    (x1, y1), (x2, y2) = ring.T, np.roll(ring, -1, 0).T
    return (x1 * y2 - x2 * y1).sum() / 2


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.95, 0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (12, 17)])
def test_filled_outlines_are_the_mask_again(share, shape):
    for seed in range(20):
        mask = np.random.default_rng(seed).random(shape) < share
        rings = outlines(mask)
        assert np.array_equal(filled(rings, shape), mask)
        assert sum(map(area, rings)) == mask.sum()
        assert all(len(np.unique(ring, axis=0)) >= 4 for ring in rings)


def test_a_hole_runs_the_other_way():
    mask = np.ones((5, 6), np.uint8)
    mask[1:3, 2:5] = 0
    around, hole = outlines(mask)
    assert around.tolist() == [[0, 0], [6, 0], [6, 5], [0, 5]] and area(around) == 30
    assert area(hole) == -6 and hole.min(0).tolist() == [2, 1] and hole.max(0).tolist() == [5, 3]


def test_pixels_that_touch_at_a_corner_are_two_polygons():
    for mask in (np.eye(2), np.eye(2)[::-1]):
        assert [len(ring) for ring in outlines(mask)] == [4, 4]


def test_no_mask_has_no_outline():
    assert outlines(np.zeros((3, 4), bool)) == []
