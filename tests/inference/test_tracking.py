"""Numbers of people in a video."""

import numpy as np
import pytest

from rpcnn.inference.tracking import Tracker


def box(x, y=50, width=40, height=100):
    return [x, y, x + width, y + height]


def test_each_person_keeps_its_number_whatever_the_order():
    tracker = Tracker()
    for frame in range(20):
        people = [box(10 + 3 * frame), box(200 - 2 * frame), box(400, y=50 + frame)]
        order = np.random.default_rng(frame).permutation(3) if frame else np.arange(3)
        assert tracker.update([people[i] for i in order]) == [i + 1 for i in order]


@pytest.mark.parametrize("missing", [0, 5])
def test_people_who_cross_keep_their_numbers(missing):
    """From both sides, over each other; for some frames around the middle, one of them hides the other."""
    tracker = Tracker()
    for frame in range(41):
        people = [box(4 * frame), box(160 - 4 * frame)]
        hidden = missing and abs(frame - 20) <= missing // 2
        assert tracker.update(people[:1] if hidden else people) == ([1] if hidden else [1, 2]), frame


@pytest.mark.parametrize(("away", "number"), [(1, 1), (30, 1), (31, 2)])
def test_who_returns_within_the_patience_keeps_the_number(away, number):
    tracker = Tracker(patience=30)
    for _ in range(3):
        assert tracker.update([box(10)]) == [1]
    for _ in range(away):
        assert tracker.update([]) == []
    assert tracker.update([box(14)]) == [number]


def test_who_walks_on_behind_something_is_found_where_he_would_be():
    tracker = Tracker()
    for frame in range(10):
        tracker.update([box(5 * frame)])
    for _ in range(10):
        tracker.update([])
    assert tracker.update([box(5 * 20)]) == [1]


def test_a_new_person_in_the_place_of_one_who_is_there_gets_a_new_number():
    tracker = Tracker()
    assert tracker.update([box(10)]) == [1]
    assert tracker.update([box(10), box(14)]) == [1, 2]


def test_a_number_is_never_given_twice():
    tracker, seen = Tracker(patience=1), []
    for place in (0, 200, 400, 0, 200):
        seen += tracker.update([box(place)])
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), [[5, 5, 5, 5]], [[9, 9, 3, 3]]])
def test_no_people_and_empty_boxes_are_no_error(boxes):
    tracker = Tracker()
    for _ in range(3):
        assert len(tracker.update(boxes)) == len(boxes)


def test_memory_does_not_grow_with_the_video():
    tracker = Tracker(patience=5)
    for frame in range(200):
        tracker.update([box(100 * frame)])
    assert len(tracker._tracks) == 6
