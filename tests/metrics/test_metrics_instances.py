"""AP^r and AP^h against values worked out by hand, and against their step-by-step definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rpcnn.metrics import (
    PARSING_THRESHOLDS,
    PERSON_THRESHOLDS,
    ap_h,
    ap_h_vol,
    ap_r,
    ap_r_vol,
    counting,
    match_instances,
    person_counts,
)
from rpcnn.metrics.instances import classes_shown
from rpcnn.metrics.reference import instance_ap_reference

A = np.uint8([[1, 1, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0]])
B = np.uint8([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 2, 2]])
HALF_OF_A = np.uint8([[1, 0, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0]])  # part 1: IoU 1/2; part 2: 1; person: 3/4


def match(people, scores, true_people, num_classes=3):
    stack = lambda maps: np.stack(maps) if len(maps) else np.zeros((0, 2, 6), np.uint8)
    people, true_people = stack(people), stack(true_people)
    counts = person_counts(people, true_people, num_classes)
    return match_instances(*counts, classes_shown(people, counts[1]), np.array(scores, float))


def test_ap_r_is_the_mean_over_the_parts():
    # Part 1 is right up to 0.4 (its IoU 1/2 does not exceed 0.5), part 2 at every threshold.
    matches = [match([HALF_OF_A], [0.9], [A])]
    assert [ap_r(matches, t) for t in PARSING_THRESHOLDS] == pytest.approx([100] * 4 + [50] * 5)
    assert ap_r_vol(matches) == pytest.approx((4 * 100 + 5 * 50) / 9)


def test_ap_h_compares_whole_people():
    matches = [match([HALF_OF_A], [0.9], [A])]  # 3/4 exceeds 0.50 … 0.70
    assert [ap_h(matches, t) for t in PERSON_THRESHOLDS] == pytest.approx([100] * 5 + [0] * 5)
    assert ap_h_vol(matches) == pytest.approx(50)


def test_a_duplicate_is_a_false_positive():
    # Best first: A (right), A again (wrong), B (right): precision 1, then 2/3 at recall 1. AP = 1/2 + 1/2 · 2/3.
    matches = [match([A, A, B], [0.9, 0.8, 0.7], [A, B])]
    assert ap_r(matches) == ap_h(matches) == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))


def test_a_matched_person_is_not_matched_again():
    # Both predictions overlap A most; the second matches the unmatched person beside it, which it also overlaps.
    wide = np.uint8([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
    left, right = np.uint8([[1, 1, 1, 0, 0, 0], [0] * 6]), np.uint8([[0, 0, 0, 1, 0, 0], [0] * 6])
    matches = [match([left, wide], [0.9, 0.8], [left, right])]
    assert ap_r(matches, 0.2) == pytest.approx(100)  # wide and right: IoU 1/4
    assert ap_r(matches, 0.3) == pytest.approx(50)


def test_parts_only_in_predictions_do_not_count():
    extra = A.copy()
    extra[0, 5] = 3
    assert ap_r([match([extra], [0.9], [A], 5)]) == pytest.approx(100)


def test_an_image_without_people_adds_false_positives():
    empty = match([A], [0.95], [])
    assert ap_r([empty, match([A], [0.9], [A])]) == pytest.approx(50)
    assert ap_h([empty, match([A], [0.9], [A])]) == pytest.approx(50)


def test_undefined_without_truth_zero_without_predictions():
    assert np.isnan(ap_r([match([A], [0.9], [])])) and np.isnan(ap_h([match([A], [0.9], [])]))
    assert ap_r([match([], [], [A])]) == ap_h([match([], [], [A])]) == 0
    assert np.isnan(ap_r([])) and np.isnan(ap_h([]))


def test_other_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"ap_r: threshold must be one of .* got 0.55"):
        ap_r([], 0.55)
    with pytest.raises(ValueError, match=r"ap_h: threshold must be one of .* got 0.4"):
        ap_h([], 0.4)


@st.composite
def scenes(draw):
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 6)))
    images = []
    for _ in range(draw(st.integers(1, 3))):
        maps = lambda top, most=4: draw(
            arrays(np.uint8, (draw(st.integers(0, most)), *shape), elements=st.sampled_from(top))
        )
        people, true_people = maps([0, 0, 1, 2]), maps([0, 0, 1, 2, 255], 3)
        images.append(
            (
                people,
                draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=len(people), max_size=len(people))),
                true_people,
            )
        )
    return images


@given(scenes(), st.sampled_from(PARSING_THRESHOLDS), st.sampled_from(PERSON_THRESHOLDS))
@settings(max_examples=150, deadline=None)
def test_equal_the_step_by_step_definition(images, threshold, person_threshold):
    # The definition has one ignore mask for all people, so pixels ignored for one person are ignored for all.
    images = [(p, s, np.where((t == 255).any(0), 255, t).astype(np.uint8)) for p, s, t in images]
    images = [(np.where((t == 255).any(0), 0, p).astype(np.uint8), s, t) for p, s, t in images]
    matches = []
    for people, scores, true_people in images:
        counts = person_counts(people, true_people, 3)
        matches.append(match_instances(*counts, classes_shown(people, counts[1]), np.array(scores, float)))
    parts = [instance_ap_reference(images, 3, threshold, part) for part in (1, 2)]
    expected = np.nan if np.isnan(parts).all() else np.nanmean(parts)
    assert ap_r(matches, threshold) == pytest.approx(expected, rel=1e-12, nan_ok=True)
    whole = instance_ap_reference(images, 3, person_threshold, None)
    assert ap_h(matches, person_threshold) == pytest.approx(whole, rel=1e-12, nan_ok=True)


@given(
    iou=arrays(float, (4, 3, 2), elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.95, np.nan])),
    occurs=arrays(bool, (3, 2)),
    order=st.permutations(range(4)),
)
@settings(max_examples=80, deadline=None)
def test_compiled_and_numpy_matching_agree(iou, occurs, order):
    if counting._metrics is None:
        pytest.skip("rpcnn._metrics is not built")
    compiled = counting._metrics.take_greedily(iou, occurs, np.array(order), (0.1, 0.5, 0.7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_metrics", None)
        expected = counting.take_greedily(iou, occurs, np.array(order), (0.1, 0.5, 0.7))
    assert np.array_equal(compiled, expected)
