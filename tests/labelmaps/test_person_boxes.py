"""Boxes around person maps, compiled and in numpy."""

import numpy as np
import pytest
from helpers.person_maps import numbered

from rpcnn.labelmaps import compiled
from rpcnn.labelmaps.boxes import enclosing_box, person_boxes
from rpcnn.metrics import person_boxes as public_person_boxes


@pytest.mark.parametrize("shape", [(4, 5), (7, 64), (20, 150)])
def test_boxes_of_numbered_people_enclose_their_labels(core, shape):
    people = numbered(np.random.default_rng(shape[0]), 7, *shape, largest=3)
    expected = []
    for person in np.asarray(people):
        y, x = np.nonzero(person)
        expected.append([x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0])
    assert person_boxes(people).tolist() == expected
    assert person_boxes(np.asarray(people)).tolist() == expected


def test_no_person_gives_no_box(core):
    assert person_boxes(np.zeros((0, 4, 6), np.uint8)).shape == (0, 4)


def test_the_box_of_an_empty_map_is_zeros():
    assert enclosing_box(np.zeros((4, 6), np.uint8)) == (0, 0, 0, 0)


def test_compiled_boxes_ignore_ids_beyond_the_people():
    if compiled.core is None:
        pytest.skip("rpcnn._labelmaps is not built")
    labels, numbers = np.ones((4, 9), np.uint8), np.full((4, 9), 3, np.uint8)
    assert compiled.core.boxes(labels, numbers, 2).tolist() == [[0, 0, 0, 0]] * 2


def test_compiled_boxes_errors_name_the_argument():
    if compiled.core is None:
        pytest.skip("rpcnn._labelmaps is not built")
    labels, numbers = np.ones((4, 9), np.uint8), np.ones((4, 9), np.uint8)
    with pytest.raises(ValueError, match=r"boxes: person_maps: .* one shape \[H, W\], got \[4, 9\] and \[3, 9\]"):
        compiled.core.boxes(labels, numbers[:3], 1)
    with pytest.raises(ValueError, match="boxes: person_maps must be uint8, got float64"):
        compiled.core.boxes(labels.astype(float), numbers, 1)
    with pytest.raises(ValueError, match=r"boxes: person_maps: the number of people must lie in 0\.\.65535, got -1"):
        compiled.core.boxes(labels, numbers, -1)


def test_the_metrics_export_person_boxes():
    assert public_person_boxes is person_boxes
