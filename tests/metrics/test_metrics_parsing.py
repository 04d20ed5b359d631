"""AP^p and PCP against values worked out by hand, and against their step-by-step definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rpcnn.metrics import PARSING_THRESHOLDS, ap_p, ap_p_vol, average_precision, match_people, pcp
from rpcnn.metrics.parsing import mean_overlap
from rpcnn.metrics.reference import ap_p_and_pcp_reference, person_iou_reference

pytestmark = pytest.mark.usefixtures("core")


def person(*cells, shape=(4, 5)):
    """A map that is 0 but for (pixel number, label) pairs; pixels are numbered row by row."""
    labels = np.zeros(shape, np.uint8)
    for pixel, label in cells:
        labels.flat[pixel] = label
    return labels


A = person((0, 1), (1, 1), (5, 2), (6, 2))
B = person((3, 1), (4, 1), (8, 2), (9, 2))
# Overlaps A and nothing of B: of part 1 one pixel of two is found, of part 2 both, and a third one too much.
#   background: 16 of 20 pixels in A, 16 in C, 15 in both (not in 0, 1, 5, 6, 7), union 16 + 16 − 15 = 17: 15/17
#   part 1: 1 of 2. part 2: hits 2, predicted 3, true 2: 2/3.   mean = (15/17 + 1/2 + 2/3) / 3 = 209/306 = 0.68301
C = person((0, 1), (5, 2), (6, 2), (7, 2))
OVERLAP_OF_C_AND_A = 209 / 306


def match(people, scores, true_people, num_classes=3):
    empty = np.zeros((0, 4, 5), np.uint8)
    return match_people(
        np.stack(people) if people else empty, scores, np.stack(true_people) if true_people else empty, num_classes
    )


def test_overlap_is_image_miou_with_background():
    matches = match([C], [0.9], [B, A])
    assert matches.person.tolist() == [1]
    assert matches.overlap == pytest.approx([OVERLAP_OF_C_AND_A])


def test_classes_in_neither_map_do_not_count():
    assert match([C], [0.9], [A], num_classes=20).overlap == pytest.approx([OVERLAP_OF_C_AND_A])


def test_a_falsely_predicted_part_counts_as_iou_0():
    # A with one background pixel called part 3: background 15/16, parts 1 and 2 are right, part 3 is 0: 47/16 / 4
    extra = A.copy()
    extra.flat[19] = 3
    assert match([extra], [1.0], [A], num_classes=4).overlap == pytest.approx([(15 / 16 + 1 + 1 + 0) / 4])


def test_of_two_people_one_is_found_exactly():
    # One prediction equal to A, of the people A and B: precision 1 up to recall 1/2. AP = 1/2 at every threshold;
    # all parts of A are right and B is not found: PCP = (1 + 0) / 2.
    matches = [match([A], [0.9], [A, B])]
    for threshold in PARSING_THRESHOLDS:
        assert ap_p(matches, threshold) == pytest.approx(50)
        assert pcp(matches, threshold) == pytest.approx(50)
    assert ap_p_vol(matches) == pytest.approx(50)


def test_ap_p_by_threshold():
    # C overlaps A by 0.683: right at 0.1 … 0.6 and wrong at 0.7, 0.8, 0.9; one person: AP 1 or 0; vol = 6/9.
    matches = [match([C], [0.9], [A])]
    assert [ap_p(matches, t) for t in PARSING_THRESHOLDS] == pytest.approx([100] * 6 + [0] * 3)
    assert ap_p_vol(matches) == pytest.approx(600 / 9)


def test_pcp_by_threshold():
    # Parts of A in C: IoU 1/2 and 2/3. Above 0.1 … 0.4 both; 0.5: strictly above is only 2/3: 1 of 2; 0.6: 1 of 2;
    # from 0.7 on C does not match A (overlap 0.683).
    matches = [match([C], [0.9], [A])]
    assert [pcp(matches, t) for t in PARSING_THRESHOLDS] == pytest.approx([100] * 4 + [50] * 2 + [0] * 3)


def test_an_overlap_equal_to_the_threshold_is_wrong():
    # truth 0 1 1, prediction 0 1 0: background 1/2, part 1/2, so the overlap is exactly 0.5.
    matches = [match_people(np.array([[[0, 1, 0]]]), [0.9], np.array([[[0, 1, 1]]]), 2)]
    assert matches[0].overlap.tolist() == [0.5]
    assert ap_p(matches, 0.5) == 0 and pcp(matches, 0.5) == 0
    assert ap_p(matches, 0.4) == 100 and pcp(matches, 0.4) == 100


def test_wrong_predictions_lower_ap_by_their_rank():
    # People A and B. In order of score: A (right), an empty map (overlaps either by less than 0.5: wrong), B (right).
    #   empty against A: background 16/20, parts 0: 0.267.
    # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1; envelope 1 up to 1/2, then 2/3: AP = 1/2 + 1/2 · 2/3 = 5/6
    matches = [match([A, B, np.zeros_like(A)], [0.9, 0.5, 0.7], [A, B])]
    assert ap_p(matches, 0.5) == pytest.approx(500 / 6)
    assert pcp(matches, 0.5) == pytest.approx(100)


def test_a_duplicate_detection_is_a_false_positive():
    # The first person is A; the second, unmatched one overlaps C above the threshold, but C overlaps A most.
    second = person((5, 2), (6, 2), (7, 2), (12, 1))
    #   C against second: part 2 3/3, part 1 0/2, background 15/17: (1 + 0 + 15/17) / 3 = 0.627 < 0.683
    matches = [match([A, C], [0.9, 0.8], [A, second])]
    assert matches[0].person.tolist() == [0, 0]
    assert ap_p(matches, 0.6) == pytest.approx(50)  # right, wrong: precision 1 up to recall 1/2


def test_equal_overlaps_match_the_first_person():
    matches = [match([A, A], [0.9, 0.8], [B, A, A])]
    assert matches[0].person.tolist() == [1, 1]
    assert ap_p(matches, 0.5) == pytest.approx(100 / 3)


def test_matching_is_within_each_image():
    # Image 1 has A and no prediction; image 2 has no person and predicts A: 0 true positives of 1.
    assert ap_p([match([], [], [A]), match([A], [0.9], [])], 0.5) == 0
    # Image 3 finds its A, but ranks below the wrong one: precision 1/2 at recall 1/2.
    assert ap_p([match([], [], [A]), match([A], [0.9], []), match([A], [0.8], [A])], 0.5) == pytest.approx(25)


def test_equal_scores_keep_their_order():
    wrong, right = match([np.zeros_like(A)], [0.5], [A]), match([B], [0.5], [B])
    # 2 people. wrong, right: precision 1/2 at recall 1/2: 1/4. right, wrong: precision 1 at recall 1/2: 1/2.
    assert ap_p([wrong, right], 0.5) == pytest.approx(25)
    assert ap_p([right, wrong], 0.5) == pytest.approx(50)


def test_predictions_are_ordered_by_score_alone():
    matches = match([np.zeros_like(A), A], [0.2, 0.9], [A])
    assert ap_p([matches], 0.5) == pytest.approx(100)


def test_scores_below_a_thousandth_are_not_counted():
    # 0.0005: A would be right, and is not counted; the wrong one below 0.001 does not lower the AP of the other.
    assert ap_p([match([A], [0.0005], [A])], 0.5) == 0
    assert pcp([match([A], [0.0005], [A])], 0.5) == 0
    assert ap_p([match([A], [0.001], [A])], 0.5) == pytest.approx(100)
    # right, [wrong], right of 2 people would be 5/6
    third = match([A, np.zeros_like(A), B], [0.5, 0.0009, 0.0005], [A, B])
    assert ap_p([third], 0.5) == pytest.approx(50)


def test_a_person_without_parts_counts_0_for_pcp():
    # Truth and prediction are background alone: overlap 1, right; no part to be correct.
    matches = [match([np.zeros_like(A)], [0.9], [np.zeros_like(A)])]
    assert ap_p(matches, 0.5) == pytest.approx(100)
    assert pcp(matches, 0.5) == 0


def test_ignored_pixels_of_a_person_do_not_count():
    # A with its two pixels of part 1 unknown; C predicts 1 and 0 there. Of the other 18: part 2 2/3, background 15/16,
    # part 1 in neither.
    unknown = A.copy()
    unknown[unknown == 1] = 255
    assert match([C], [0.9], [unknown]).overlap == pytest.approx([(2 / 3 + 15 / 16) / 2])


def test_overlap_is_0_where_all_is_ignored():
    assert match([C], [0.9], [np.full_like(A, 255)]).overlap.tolist() == [0]


def test_truth_as_prediction_gives_100():
    matches = [match([A, B], [0.9, 0.8], [A, B]), match([C], [0.7], [C])]
    assert ap_p_vol(matches) == pytest.approx(100)
    assert [pcp(matches, t) for t in PARSING_THRESHOLDS] == pytest.approx([100] * 9)


def test_without_predictions_everything_is_0():
    matches = [match([], [], [A, B])]
    assert ap_p_vol(matches) == 0 and pcp(matches) == 0


@pytest.mark.parametrize("images", [[], [([A], [0.9], [])], [([], [], [])]])
def test_without_people_nothing_is_defined(images):
    matches = [match(*image) for image in images]
    assert math.isnan(ap_p(matches)) and math.isnan(ap_p_vol(matches)) and math.isnan(pcp(matches))


def test_average_precision_interpolates_precision():
    # wrong right right right wrong right, 5 people: precision 0 1/2 2/3 3/4 3/5 4/6 at recall 0 .2 .4 .6 .6 .8.
    # Envelope: 3/4 up to 0.6, 4/6 up to 0.8, 0 beyond: 0.6 · 3/4 + 0.2 · 2/3 = 0.45 + 0.1333
    right = np.array([False, True, True, True, False, True])
    assert average_precision(right, 5) == pytest.approx(0.45 + 0.2 * 2 / 3)
    assert average_precision(np.zeros(0, bool), 5) == 0


def test_tensors_work_like_arrays():
    maps = torch.from_numpy(np.stack([A, C]))
    matches = match_people(maps, torch.tensor([0.5, 0.75], requires_grad=True), maps, 3)
    assert matches.scores.tolist() == [0.5, 0.75] and matches.person.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("scores", "message"),
    [([0.5, 0.6], r"scores must have shape \[1\]"), ([math.nan], "scores must be finite, got nan")],
)
def test_scores_must_be_finite_and_one_per_person(scores, message):
    with pytest.raises(ValueError, match=message):
        match([A], scores, [A])


def test_pcp_threshold_must_be_listed():
    with pytest.raises(ValueError, match=r"threshold must be one of .* got 0\.55"):
        pcp([match([A], [0.5], [A])], 0.55)


@st.composite
def scenes(draw):
    """A few images with overlapping people, tied scores and ignored pixels; 4 classes."""
    images = []
    for _ in range(draw(st.integers(1, 3))):
        maps = lambda count, largest: arrays(np.uint8, (count, 3, 9), elements=st.sampled_from([0, 0, 0, *largest]))
        true_people = draw(maps(draw(st.integers(0, 3)), [1, 1, 2, 3, 255]))
        people = draw(maps(draw(st.integers(0, 3)), [1, 2, 3]))
        if len(true_people) and len(people):
            people[0] = np.where(true_people[0] < 4, true_people[0], 0)  # so that there are true positives
        score = st.sampled_from([0.9, 0.5, 0.5, 0.0005])
        images.append((people, draw(st.lists(score, min_size=len(people), max_size=len(people))), true_people))
    return images


@given(scenes())
@settings(max_examples=80, deadline=None)
def test_overlaps_equal_the_definition_bit_for_bit(images):
    for people, scores, true_people in images:
        matches = match_people(people, scores, true_people, 4)
        for n, one in enumerate(people):
            iou = np.array([person_iou_reference(one, other, 4) for other in true_people]).reshape(-1, 4)
            if not len(iou):
                assert matches.person[n] == -1
                continue
            means = [0.0 if np.isnan(values).all() else np.nanmean(values) for values in iou]
            assert matches.person[n] == np.argmax(means)
            assert matches.overlap[n] == np.max(means)


@given(scenes(), st.sampled_from(PARSING_THRESHOLDS))
@settings(max_examples=80, deadline=None)
def test_ap_p_and_pcp_equal_the_step_by_step_definition(images, threshold):
    matches = [match_people(*image, 4) for image in images]
    expected = ap_p_and_pcp_reference(images, 4, threshold)
    assert (ap_p(matches, threshold), pcp(matches, threshold)) == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_the_mean_over_59_classes_rounds_as_numpy_does():
    iou = np.random.default_rng(0).random((50, 7, 59))
    iou[np.random.default_rng(1).random(iou.shape) < 0.6] = np.nan
    assert np.array_equal(mean_overlap(iou), np.nanmean(iou, -1))
