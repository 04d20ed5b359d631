"""The evaluator, image by image and over any number of processes, equals the metric functions."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rpcnn.labels import PASCAL_PERSON_PART, LabelSet
from rpcnn.metrics import ParsingEvaluator, format_table

SEMANTIC = ("miou", "pixel_accuracy", "mean_accuracy")
PEOPLE = ("ap_p_50", "ap_p_vol", "pcp_50", "ap_r_50", "ap_r_vol", "ap_h_vol", "ap_bbox")
KEYS = SEMANTIC + PEOPLE


def scene(seed, num_people=3, height=40, width=60):
    """True people side by side in random parts of 7 classes."""
    rng = np.random.default_rng(seed)
    people, boxes = np.zeros((num_people, height, width), np.uint8), np.zeros((num_people, 4))
    for i in range(num_people):
        left, top = 20 * i + rng.integers(0, 5), rng.integers(0, 10)
        right, bottom = left + rng.integers(8, 15), top + rng.integers(20, 30)
        people[i, top:bottom, left:right] = rng.integers(1, 7, (bottom - top, 1))
        boxes[i] = left, top, right, bottom
    return people, boxes


def truth(seed, **kwargs):
    people, boxes = scene(seed, **kwargs)
    label_map = people.max(0) if len(people) else np.zeros((40, 60), np.uint8)
    return dict(true_label_map=label_map, true_person_maps=people, true_boxes=boxes)


def perfect(seed, **kwargs):
    people, boxes = scene(seed, **kwargs)
    scores = np.linspace(0.9, 0.5, len(people))
    label_map = truth(seed, **kwargs)["true_label_map"]
    return dict(label_map=label_map, person_maps=people, boxes=boxes, scores=scores, box_scores=scores)


def noisy(seed, tied=False):
    """A prediction with a wrong part, a shifted box and one false positive."""
    prediction, rng = perfect(seed), np.random.default_rng(seed + 100)
    people = np.concatenate([prediction["person_maps"], np.roll(prediction["person_maps"][:1], 7, axis=2)])
    people[:, rng.integers(5, 25)] = 0
    scores = np.full(4, 0.5) if tied else rng.random(4)
    boxes = np.concatenate([prediction["boxes"], prediction["boxes"][:1] + 7]) + rng.integers(-2, 3, (4, 4))
    return dict(label_map=people.max(0), person_maps=people, boxes=boxes, scores=scores, box_scores=scores)


def nothing():
    return dict(
        label_map=np.zeros((40, 60), np.uint8),
        person_maps=np.zeros((0, 40, 60), np.uint8),
        boxes=np.zeros((0, 4)),
        scores=np.zeros(0),
        box_scores=np.zeros(0),
    )


def test_truth_as_prediction_gives_100_everywhere():
    evaluator = ParsingEvaluator(7)
    for seed in range(3):
        evaluator.add(**perfect(seed), **truth(seed))
    results = evaluator.summarize()
    assert {key: results[key] for key in KEYS} == pytest.approx(dict.fromkeys(KEYS, 100))
    per_threshold = [results[f"{name}_{step}"] for name in ("ap_p", "pcp") for step in range(10, 100, 10)]
    assert per_threshold == pytest.approx([100] * 18)
    assert (results["images"], results["people"]) == (3, 9)
    assert results["iou"] == pytest.approx([100] * 7)


def test_one_image_by_hand():
    # 1 × 8 pixels, 3 classes; truth: person P = 1 1 2 2 0 0 0 0, person Q = 0 0 0 0 0 0 1 1.
    # One prediction, 1 1 2 0 0 0 0 0 with box [0, 3) of the true [0, 4); the label map is the same.
    #   label map: background 2 hits + ... truth 1 1 2 2 0 0 1 1, prediction 1 1 2 0 0 0 0 0:
    #     background 2 hits, 2 true, 5 predicted: 2/5. part 1: 2, 4, 2: 2/4. part 2: 1, 2, 1: 1/2.
    #     mIoU = (0.4 + 0.5 + 0.5) / 3; pixels 5/8; mean accuracy (2/2 + 2/4 + 1/2) / 3
    #   P: background 4/5, part 1 1, part 2 1/2: overlap 2.3/3 = 0.767: right up to 0.7; of two people: AP 1/2 or 0.
    #   PCP: up to 0.4 both parts of P, from 0.5 to 0.7 one, then none; halved by Q.
    #   instances: part 1 of P exactly, of two: AP 1/2. part 2 with IoU 1/2: AP 1 up to 0.4, then 0.
    #   P as a whole: IoU 3/4, right at 0.50 … 0.70, of two: 5 of 10 times 1/2.
    #   box: IoU 3/4: right at 0.50 … 0.75, 6 of 10, each with precision 1 at 51 of 101 recall points.
    evaluator = ParsingEvaluator(3)
    p, q, found = [1, 1, 2, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1], [1, 1, 2, 0, 0, 0, 0, 0]
    evaluator.add(
        label_map=[found],
        person_maps=[[found]],
        scores=[0.6],
        boxes=[[0, 0, 3, 1]],
        box_scores=[0.9],
        true_label_map=[[1, 1, 2, 2, 0, 0, 1, 1]],
        true_person_maps=[[p], [q]],
        true_boxes=[[0, 0, 4, 1], [6, 0, 8, 1]],
    )
    results = evaluator.summarize()
    assert results["iou"] == pytest.approx([40, 50, 50])
    assert results["miou"] == pytest.approx(140 / 3)
    assert results["pixel_accuracy"] == pytest.approx(62.5)
    assert results["mean_accuracy"] == pytest.approx(200 / 3)
    assert [results[f"ap_p_{step}"] for step in range(10, 100, 10)] == pytest.approx([50] * 7 + [0] * 2)
    assert results["ap_p_vol"] == pytest.approx(350 / 9) and results["ap_p_50"] == pytest.approx(50)
    assert [results[f"pcp_{step}"] for step in range(10, 100, 10)] == pytest.approx([50] * 4 + [25] * 3 + [0] * 2)
    assert results["pcp_50"] == pytest.approx(25)
    assert results["ap_r_50"] == pytest.approx(25) and results["ap_r_vol"] == pytest.approx((4 * 75 + 5 * 25) / 9)
    assert results["ap_h_50"] == pytest.approx(50) and results["ap_h_vol"] == pytest.approx(25)
    assert results["ap_bbox"] == pytest.approx(60 * 51 / 101)


def test_without_the_background_ap_p_is_harder():
    # background 4/4, part 1 2/2, part 2 0/1 and part 3 0/1: (1 + 1 + 0 + 0) / 4 with it, 1/3 without.
    found, person = [1, 1, 3, 0, 0, 0, 0, 0], [1, 1, 2, 0, 0, 0, 0, 0]
    one = dict(label_map=[found], person_maps=[[found]], scores=[0.6], boxes=[[0, 0, 3, 1]], box_scores=[0.9])
    one |= dict(true_label_map=[person], true_person_maps=[[person]], true_boxes=[[0, 0, 3, 1]])
    overlaps = []
    for count_background in (True, False):
        evaluator = ParsingEvaluator(4, count_background=count_background)
        evaluator.add(**one)
        overlaps.append([evaluator.summarize()[f"ap_p_{step}"] for step in range(10, 100, 10)])
    assert overlaps == [[100] * 4 + [0] * 5, [100] * 3 + [0] * 6]


def test_free_only_matches_unmatched_people_only():
    # Both predictions overlap P most. The second overlaps Q by more than 0.5, too, and finds it only with free_only.
    p, q, both = [1, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]
    one = dict(
        label_map=[both], person_maps=[[p], [both]], scores=[0.9, 0.8], boxes=[[0, 0, 3, 1]] * 2, box_scores=[0.9, 0.8]
    )
    one |= dict(true_label_map=[p], true_person_maps=[[p], [q]], true_boxes=[[0, 0, 3, 1], [1, 0, 3, 1]])
    found, parts = [], []
    for free_only in (False, True):
        evaluator = ParsingEvaluator(2, free_only=free_only)
        evaluator.add(**one)
        results = evaluator.summarize()
        found.append(results["ap_p_50"])
        parts.append(results["pcp_50"])
    assert found == pytest.approx([50, 100]) and parts == pytest.approx([50, 100])


@pytest.mark.parametrize("empty_first", [False, True])
def test_free_only_takes_images_without_true_people(empty_first):
    nobody = noisy(1) | truth(1, num_people=0)
    images = [noisy(0) | truth(0), nobody]
    results = []
    for free_only in (False, True):
        evaluator = ParsingEvaluator(7, free_only=free_only)
        for image in reversed(images) if empty_first else images:
            evaluator.add(**image)
        results.append(evaluator.summarize())
    assert 0 < results[1]["ap_p_10"] < 100 and results[1]["people"] == 3
    assert results[1]["ap_p_10"] >= results[0]["ap_p_10"]


def test_absent_classes_are_skipped_or_count_as_0():
    values = []
    for absent in ("skip", "zero"):
        evaluator = ParsingEvaluator(20, absent=absent)
        evaluator.add(**perfect(0), **truth(0))
        values.append(evaluator.summarize()["miou"])
    present = len(np.unique(truth(0)["true_label_map"]))
    assert values == pytest.approx([100, 100 * present / 20])
    with pytest.raises(ValueError, match="absent must be 'skip' or 'zero', got 'drop'"):
        ParsingEvaluator(20, absent="drop")


def test_images_without_predictions_count():
    evaluator = ParsingEvaluator(7)
    evaluator.add(**perfect(0), **truth(0))
    evaluator.add(**nothing(), **truth(1))
    results = evaluator.summarize()
    pixels, missed = 2 * 40 * 60, np.count_nonzero(truth(1)["true_label_map"])
    assert results["pixel_accuracy"] == pytest.approx(100 * (pixels - missed) / pixels)
    assert results["ap_p_50"] == results["pcp_50"] == pytest.approx(50)  # 3 of 6 people
    assert results["ap_bbox"] == pytest.approx(100 * 51 / 101)


def test_no_prediction_at_all_gives_0_for_people():
    evaluator = ParsingEvaluator(7)
    evaluator.add(**nothing(), **truth(0))
    results = evaluator.summarize()
    assert [results[key] for key in PEOPLE] == [0] * 7


def test_without_true_people_only_semantic_metrics_are_defined():
    evaluator = ParsingEvaluator(7)
    evaluator.add(**nothing(), **truth(0, num_people=0))
    results = evaluator.summarize()
    assert [results[key] for key in KEYS] == [100] * 3 + [None] * 7
    assert results["iou"] == [100] + [None] * 6
    json.dumps(results, allow_nan=False)


def test_an_empty_set_has_no_metrics():
    results = ParsingEvaluator(7).summarize()
    assert [results[key] for key in KEYS] == [None] * 10
    assert (results["images"], results["people"]) == (0, 0)


@pytest.mark.parametrize("processes", [2, 3])
def test_merged_processes_equal_one(processes):
    alone, parts = ParsingEvaluator(7), [ParsingEvaluator(7) for _ in range(processes)]
    for seed in range(7):
        alone.add(**noisy(seed), **truth(seed))
        parts[seed % processes].add(**noisy(seed), **truth(seed))
    for part in parts[1:]:
        parts[0].merge(pickle.loads(pickle.dumps(part.state())))
    assert parts[0].summarize() == alone.summarize()
    assert 0 < alone.summarize()["ap_p_vol"] < 100


def test_named_images_make_ties_independent_of_order():
    alone, parts = ParsingEvaluator(7), [ParsingEvaluator(7) for _ in range(3)]
    for seed in range(9):
        image = noisy(seed, tied=True) | truth(seed) | dict(image_id=f"{seed:03}")
        alone.add(**image)
        parts[seed % 3].add(**image)
    parts[2].merge(parts[1].state())
    parts[2].merge(parts[0].state())
    assert parts[2].summarize() == alone.summarize()


def test_the_state_is_a_copy():
    evaluator = ParsingEvaluator(7)
    evaluator.add(**perfect(0), **truth(0))
    state, before = evaluator.state(), evaluator.summarize()
    evaluator.add(**nothing(), **truth(1))
    other = ParsingEvaluator(7)
    other.merge(state)
    assert other.summarize() == before and len(state["images"]) == 1


def test_no_map_is_kept():
    # 3 people of 512 × 512 would be 786 kB.
    evaluator = ParsingEvaluator(7)
    evaluator.add(**perfect(0, height=512, width=512), **truth(0, height=512, width=512))
    assert len(pickle.dumps(evaluator.state())) < 4000


def test_a_result_and_its_truth_are_their_arrays():
    evaluator, other = ParsingEvaluator(7), ParsingEvaluator(7)
    evaluator.add(**noisy(0), **truth(0), image_id="a")
    result = SimpleNamespace(**noisy(0))
    other.add_result(result, SimpleNamespace(**{k.removeprefix("true_"): v for k, v in truth(0).items()}), "a")
    assert evaluator.summarize() == other.summarize()


def test_tensors_are_taken():
    evaluator, other = ParsingEvaluator(7), ParsingEvaluator(7)
    image = noisy(0) | truth(0)
    evaluator.add(**image)
    other.add(**{key: torch.from_numpy(np.asarray(value)) for key, value in image.items()})
    assert evaluator.summarize() == other.summarize()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(label_map=np.zeros((40, 61), int)), r"label_map and true_label_map .*\[40, 61\] and \[40, 60\]"),
        (dict(label_map=np.full((40, 60), 7)), r"prediction must lie in 0\.\.6, got 7"),
        (dict(person_maps=np.zeros((3, 40, 61), int)), r"one height and width, got \[3, 40, 61\]"),
        (dict(true_person_maps=np.zeros((3, 41, 60), int)), r"true_person_maps must have shape \[G, 40, 60\]"),
        (dict(person_maps=np.full((3, 40, 60), 9)), r"person_maps must lie in 0\.\.6, got 9"),
        (dict(scores=np.zeros(2)), r"scores must have shape \[3\]"),
        (dict(box_scores=np.array([0.5, np.nan, 0.1])), "box_scores must be finite"),
        (dict(boxes=np.zeros((2, 4))), r"boxes must have shape \[3, 4\].*got \[2, 4\]"),
        (dict(true_boxes=np.zeros((3, 5))), r"true_boxes must have shape \[N, 4\]"),
        (dict(image_id="first"), "image 'first' was added before"),
    ],
)
def test_mismatched_input_raises_and_is_not_counted(change, message):
    evaluator = ParsingEvaluator(7)
    evaluator.add(**perfect(0), **truth(0), image_id="first")
    before = evaluator.summarize()
    with pytest.raises(ValueError, match=message):
        evaluator.add(**(perfect(1) | truth(1) | change))
    assert evaluator.summarize() == before


def test_merging_raises_on_duplicate_images_or_other_classes():
    evaluator, other = ParsingEvaluator(7), ParsingEvaluator(7)
    for each in (evaluator, other):
        each.add(**perfect(0), **truth(0), image_id=4)
    with pytest.raises(ValueError, match="image 4 was added before"):
        evaluator.merge(other.state())
    with pytest.raises(ValueError, match="state of 7 classes, got 20"):
        evaluator.merge(ParsingEvaluator(20).state())


def test_the_table_shows_every_metric_and_class():
    evaluator = ParsingEvaluator(7)
    evaluator.add(**noisy(1), **truth(1))
    results = evaluator.summarize()
    text = format_table(results, PASCAL_PERSON_PART)
    lines = text.splitlines()
    assert lines[0] == "PASCAL-Person-Part: 1 images, 3 people, in percent"
    assert lines[2].split() == [f"{results[key]:.2f}" for key in KEYS]
    assert all(name in text for name in PASCAL_PERSON_PART.names)
    for name, iou in zip(PASCAL_PERSON_PART.names, results["iou"], strict=True):
        assert f"{iou:.1f}" in next(line for line in lines if name in line)
    assert max(map(len, lines)) <= 120


def test_the_table_marks_what_is_undefined():
    text = format_table(ParsingEvaluator(2).summarize(), LabelSet("two", ("Background", "Person")))
    assert text.splitlines()[2].split() == ["–"] * 10
