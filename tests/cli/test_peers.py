"""benchmarks/peers.py times two processes in turns, and times nothing unless both find the same."""

import sys

import numpy as np
import pytest
from helpers.markdown import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from peers import assert_agree, compare
from sides.cases import CASES, classes, crowd, people, random_boxes
from sides.process import Side

CASE = "nms, of a test"
FAKE = """
import time
import numpy as np
from sides import Timed

def sleeping(arrays, threads):
    print("a library's message")
    return Timed(lambda: time.sleep(float(arrays["seconds"])), lambda _: np.arange(3), f"{threads}, as told")

def wrong(arrays, threads):
    return Timed(lambda: None, lambda _: np.arange(3) + 1, "")

def failing(arrays, threads):
    raise ValueError("no such model")

def ending(arrays, threads):
    import os
    os._exit(3)
"""


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sides")
    (folder / "fake_side.py").write_text(FAKE)
    np.savez(folder / "inputs.npz", **{f"{CASE}/seconds": np.array(0.002)})
    make = lambda: Side("fake_side", folder / "inputs.npz", 1, folders=[folder])
    with make() as ours, make() as peer:
        yield ours, peer


def test_both_sides_are_timed_in_as_many_rounds(sides):
    row = compare(*sides, "fake", CASE, ("sleeping", "sleeping"), budget=0.05)
    assert len(row.our_times.samples) == len(row.peer_times.samples) >= 7
    assert row.our_times.median >= 2000 and row.peer_times.median >= 2000  # microseconds
    assert row.threads == "1, as told"


def test_results_that_differ_are_not_timed(sides):
    with pytest.raises(AssertionError, match=CASE):
        compare(*sides, "fake", CASE, ("sleeping", "wrong"), budget=0)


def test_a_failure_names_the_side_and_its_reason(sides):
    with pytest.raises(RuntimeError, match=r"fake_side at .*ValueError: no such model"):
        sides[1].ask(make="failing", case=CASE)


def test_a_side_that_ends_is_reported(tmp_path, sides):
    (tmp_path / "fake_side.py").write_text(FAKE)
    np.savez(tmp_path / "inputs.npz")
    with Side("fake_side", tmp_path / "inputs.npz", 1, folders=[tmp_path]) as side:  # noqa: SIM117
        with pytest.raises(RuntimeError, match="the process ended with 3"):
            side.ask(make="ending", case=CASE)


def test_rounding_may_differ_but_kept_boxes_may_not():
    assert_agree("roi_align, one", np.ones(3), np.ones(3) + 1e-6)
    with pytest.raises(AssertionError):
        assert_agree("nms, one", np.arange(3), np.array([0, 2, 1]))
    with pytest.raises(AssertionError):
        assert_agree("nms, one", np.arange(3), np.arange(2))


def test_boxes_have_whole_pixels_and_scores_are_distinct():
    for made in (random_boxes(500), crowd(500), classes(480, 80), people(20, 10)):
        boxes = made["boxes"]
        assert (boxes == boxes.round()).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(np.unique(made["scores"])) == len(boxes)
    assert len(CASES) == 12
