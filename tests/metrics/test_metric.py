"""Custom metrics passed to the evaluator beside the built-in ones."""

import pathlib
import pickle

import numpy as np
import pytest
from helpers.metrics import RightNumber

from rpcnn.labels import LabelSet
from rpcnn.metrics import DEFAULT_METRICS, Metric, ParsingEvaluator, docs, format_table, image_pair

LABELS = LabelSet("three", ("Background", "Upper", "Lower"))


class MeanPeople(Metric):
    """Mean number of true people per image."""

    additive = True

    def measure(self, image, settings):
        return np.array([len(image.true_person_maps), 1])

    def summarize(self, counts, settings):
        return {"mean_people": np.divide(*counts) if np.any(counts) else np.nan}

    def lines(self, results, labels):
        return [f"{results['mean_people']:.2f} people an image of {labels.name}"]


METRICS = (*DEFAULT_METRICS, RightNumber(), MeanPeople())


def image(num_predicted, num_true):
    """People in rows of 4 × 9 pixels, each found exactly."""
    maps = np.zeros((4, 4, 9), np.uint8)
    maps[np.arange(4), np.arange(4)] = 1
    boxes = np.array([[0, row, 9, row + 1] for row in range(4)])
    scores = np.linspace(0.9, 0.6, 4)
    return dict(
        label_map=maps[:num_predicted].max(0, initial=0),
        person_maps=maps[:num_predicted],
        scores=scores[:num_predicted],
        boxes=boxes[:num_predicted],
        box_scores=scores[:num_predicted],
        true_label_map=maps[:num_true].max(0, initial=0),
        true_person_maps=maps[:num_true],
        true_boxes=boxes[:num_true],
    )


IMAGES = [(2, 2), (1, 3), (4, 4), (0, 1), (3, 3)]  # three of five have the right number, 13 true people


def evaluated(images, metrics=METRICS):
    evaluator = ParsingEvaluator(3, metrics=metrics)
    for i, numbers in images:
        evaluator.add(**image(*numbers), image_id=i)
    return evaluator


def test_custom_metrics_run_beside_built_in_ones():
    results = evaluated(enumerate(IMAGES)).summarize()
    assert results["right_number"] == 60 and results["mean_people"] == 13 / 5
    plain = evaluated(enumerate(IMAGES), DEFAULT_METRICS).summarize()
    assert {key: results[key] for key in plain} == plain
    own = {"right_number", "mean_people"}
    assert [key for key in results if key not in own] == list(plain) and results.keys() - plain.keys() == own


def test_custom_metrics_merge_two_states():
    one, other = evaluated([*enumerate(IMAGES)][::2]), evaluated([*enumerate(IMAGES)][1::2])
    one.merge(pickle.loads(pickle.dumps(other.state())))
    assert one.summarize() == evaluated(enumerate(IMAGES)).summarize()


def test_custom_metrics_alone_give_only_their_keys():
    evaluator = evaluated(enumerate(IMAGES), (RightNumber(),))
    assert evaluator.summarize() == {"right_number": 60, "images": 5, "people": 13}
    text = format_table(evaluator.summarize(), LABELS, evaluator.metrics)
    assert text.splitlines()[1:] == ["      Number", "       60.00"]


def test_the_table_prints_their_columns_and_lines():
    evaluator = evaluated(enumerate(IMAGES))
    results = evaluator.summarize()
    lines = format_table(results, LABELS, evaluator.metrics).splitlines()
    assert lines[1].split()[-2:] == ["AP^bbox", "Number"] and lines[2].split()[-1] == "60.00"
    assert lines[-2:] == ["", "2.60 people an image of three"]
    assert "Number" not in format_table(results, LABELS)


def test_person_metrics_are_undefined_without_people():
    results = evaluated(enumerate(IMAGES)).summarize(knows_people=False)
    missing = {key for key, value in results.items() if value is None}
    assert missing == {key for metric in METRICS for key in metric.needs_people}
    assert {"ap_p_10", "pcp_50", "ap_h_vol", "ap_bbox", "right_number"} <= missing
    assert not {"miou", "ap_r_50", "mean_people"} & missing


def test_an_empty_set_leaves_every_metric_undefined():
    results = ParsingEvaluator(3, metrics=METRICS).summarize()
    assert results["right_number"] is None and results["mean_people"] is None


def test_an_additive_metric_keeps_nothing_per_image():
    state = evaluated(enumerate(IMAGES), (MeanPeople(),)).state()
    assert [counts.counts for counts in state["images"].values()] == [(None,)] * 5
    assert state["sums"][0].tolist() == [13, 5]


def test_merging_refuses_a_state_of_other_metrics():
    evaluator = ParsingEvaluator(3, metrics=(RightNumber(),))
    with pytest.raises(ValueError, match="a state of the metrics RightNumber, got SemanticMetrics, PersonMetrics"):
        evaluator.merge(ParsingEvaluator(3).state())


def test_pixels_are_counted_once_for_all_metrics(monkeypatch):
    calls = []
    count = image_pair.image_counts
    monkeypatch.setattr(image_pair, "image_counts", lambda *given, **named: calls.append(1) or count(*given, **named))
    monkeypatch.setattr(image_pair, "person_counts", lambda *given, **named: calls.append(1))
    evaluated(enumerate(IMAGES))
    assert len(calls) == len(IMAGES)


def test_every_column_is_a_key_of_the_results():
    results = evaluated(enumerate(IMAGES)).summarize()
    assert {key for metric in METRICS for _, key in metric.columns} <= results.keys()
    assert {key for metric in METRICS for key in metric.needs_people} <= results.keys()


def test_the_page_of_metrics_is_the_metrics_docstrings():
    page = pathlib.Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == docs.markdown(), "python -m rpcnn.metrics.docs > docs/metrics.md"
    text = docs.markdown((RightNumber(),))
    assert text.endswith(
        "\n## Percentage of images with as many predicted people as true ones\n\nKeys: `right_number`. "
        "Undefined where predictions do not say which person a pixel belongs to: all.\n"
    )
