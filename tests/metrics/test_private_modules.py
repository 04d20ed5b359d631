"""The compiled modules check the types of their arguments themselves: nothing but an exception comes of wrong ones."""

import sys

import numpy as np
import pytest

labelmaps = pytest.importorskip("rpcnn._labelmaps")
metrics = pytest.importorskip("rpcnn._metrics")

LABELS, MAPS = np.zeros((4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
NUMBERED = (LABELS, LABELS, 1)
CALLS = {
    metrics.confusion_matrix: (LABELS, LABELS, 3),
    metrics.person_counts: (MAPS, NUMBERED, 3),
    metrics.image_counts: (NUMBERED, NUMBERED, 3),
    metrics.take_greedily: (np.zeros((1, 1, 1)), np.zeros((1, 1), bool), np.zeros(1, int), [0.5]),
    metrics.coco_boxes: (np.ones((1, 4)), np.ones(1), np.array([0, 1]), np.ones((2, 4)), np.array([0, 2]), [0.5], 100),
    labelmaps.boxes: (LABELS, LABELS, 1),
    labelmaps.unfilter_png: (b"\0\0", 1, 1),
    labelmaps.paint_runs: (LABELS.copy(), b"@0", 1),
}
WRONG = [
    *(None, 1.5, -1, 2**40, 2**62, 2**64, "x", b"x", [], [[1]], {}, object(), int, np.zeros(()), np.array(["a"])),
    *(np.zeros((2, 2), object), np.zeros((4, 4), ">u2"), np.zeros((4, 4), np.complex64), np.zeros((0, 4), np.uint8)),
    *((), (LABELS,), (1, 2), (LABELS, LABELS), (LABELS, None, 1), (LABELS, LABELS, "x"), (LABELS, LABELS, 1.5)),
    *((LABELS, LABELS, -1), (LABELS, LABELS, 2**40), (LABELS, LABELS, 2**64), (LABELS, LABELS[:2], 1), (MAPS, MAPS, 1)),
    *((LABELS, LABELS.astype(np.int64), 1), (LABELS, np.full((4, 4), 9, np.uint8), 1)),
]


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_wrong_types_are_exceptions(function):
    function(*CALLS[function])
    for place in range(len(CALLS[function])):
        for wrong in WRONG:
            arguments = list(CALLS[function])
            arguments[place] = wrong
            try:
                function(*arguments)
            except (TypeError, ValueError, OverflowError, MemoryError):
                assert sys.exc_info()[1].args


@pytest.mark.parametrize("count", [-1, 65_536, 2**40])
def test_the_number_of_people_is_bounded(count):
    for call in (
        lambda: metrics.person_counts(MAPS, (LABELS, LABELS, count), 3),
        lambda: metrics.image_counts((LABELS, LABELS, count), NUMBERED, 3),
        lambda: labelmaps.boxes(LABELS, LABELS, count),
    ):
        with pytest.raises(ValueError, match=rf"the number of people must lie in 0\.\.65535, got {count}"):
            call()


@pytest.mark.parametrize("given", [None, 3, "maps", [], MAPS.tolist()])
def test_what_is_no_array_is_named(given):
    with pytest.raises(ValueError, match="person_counts: person_maps must be an array or a tuple, got <class"):
        metrics.person_counts(given, NUMBERED, 3)
