"""python -m rpcnn.evaluate --predictions: evaluate stored predictions on a data set."""

import json
import os
import pathlib

import numpy as np
import pytest
from helpers.metrics import RightNumber

from rpcnn.data.datasets import open_split
from rpcnn.data.painted.scene import write_cihp
from rpcnn.evaluate import main
from rpcnn.evaluation.predictions import evaluate_predictions
from rpcnn.formats import FORMATS, Prediction, make_format
from rpcnn.metrics import DEFAULT_METRICS, ParsingEvaluator, format_table

PEOPLE = ("ap_p_50", "ap_p_vol", "pcp_50", "ap_h_50", "ap_h_vol", "ap_bbox")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_cihp(root, train=1, val=4, size=(64, 80), seed=3, difficulty=0.3, workers=1)
    return root


def write(name, folder, dataset, change=lambda prediction: prediction, skip=()):
    format = make_format(name)
    for i, entry in enumerate(dataset.entries):
        if i in skip:
            continue
        truth = dataset.load(i, with_image=False)
        people = truth["person_maps"].numpy()
        perfect = Prediction(truth["label_map"].numpy(), people, np.ones(len(people)))
        format.write(folder, entry.id, change(perfect))
    format.finish(folder)


def checked_hundred(results, name):
    values = {key: results[key] for key in ("miou", "pixel_accuracy", "mean_accuracy", "ap_r_50", "ap_r_vol", *PEOPLE)}
    expected = dict.fromkeys(values, 100) | (dict.fromkeys(PEOPLE) if name == "cihp" else {})
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("name", FORMATS)
def test_truth_as_prediction_gives_100(name, scenes, tmp_path, capsys):
    write(name, tmp_path, open_split(scenes, "val"))
    output = tmp_path / "out" / "of_mine"
    results = main(["--predictions", str(tmp_path), "--data-root", str(scenes), "--output", str(output)])
    checked_hundred(results, name)
    assert json.loads((output / "results.json").read_text()) == results | {"format": name}
    printed = capsys.readouterr().out
    assert "AP^r_vol" in printed and ("differ from overlapping" in printed) == (name not in ("people", "coco"))


@pytest.mark.parametrize("name", FORMATS)
def test_truth_of_the_real_sample_gives_100(name, tmp_path):
    if "RPCNN_SAMPLE_DATA" not in os.environ:
        pytest.skip("RPCNN_SAMPLE_DATA is not set: no real CIHP sample")
    root = pathlib.Path(os.environ["RPCNN_SAMPLE_DATA"]) / "cihp_sample"
    dataset = open_split(root, "val")
    write(name, tmp_path, dataset)
    checked_hundred(evaluate_predictions(make_format(name), tmp_path, dataset, ParsingEvaluator(20)), name)


def test_formats_without_overlaps_change_ap_p(scenes, tmp_path):
    dataset = open_split(scenes, "val")

    def doubled(perfect):  # a second person over all of the first one, with a better score
        people = np.concatenate([perfect.person_maps, np.where(perfect.person_maps[:1] > 0, 1, 0).astype(np.uint8)])
        return Prediction(perfect.label_map, people, np.append(perfect.scores / 2, 0.9))

    results = {}
    for name in ("people", "instances"):
        write(name, tmp_path / name, dataset, doubled)
        results[name] = evaluate_predictions(make_format(name), tmp_path / name, dataset, ParsingEvaluator(20))
    assert results["people"]["pcp_50"] > results["instances"]["pcp_50"]


def test_the_number_of_threads_changes_nothing(scenes, tmp_path):
    dataset = open_split(scenes, "val")
    noise = np.random.default_rng(0)

    def noisy(perfect):
        people = np.where(noise.random(perfect.person_maps.shape) < 0.2, 3, perfect.person_maps).astype(np.uint8)
        return Prediction(perfect.label_map, people, noise.random(len(people)))

    write("people", tmp_path, dataset, noisy)
    one, four = (
        evaluate_predictions(make_format("people"), tmp_path, dataset, ParsingEvaluator(20), workers=n) for n in (1, 4)
    )
    assert one == four and 0 < one["ap_p_vol"] < 100


@pytest.mark.parametrize(("name", "expected"), [("people", 50), ("cihp", None)])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_custom_metric_is_evaluated_and_printed(name, expected, workers, scenes, tmp_path):
    dataset = open_split(scenes, "val")
    fewer = lambda one: Prediction(one.label_map, one.person_maps[:-1], one.scores[:-1])
    write(name, tmp_path, dataset, skip=(0, 1))
    write(name, tmp_path, dataset, fewer, skip=(2, 3))
    evaluator = ParsingEvaluator(20, metrics=(*DEFAULT_METRICS, RightNumber()))
    results = evaluate_predictions(make_format(name), tmp_path, dataset, evaluator, workers=workers)
    assert results["right_number"] == expected
    titles, values = format_table(results, dataset.labels, evaluator.metrics).splitlines()[1:3]
    assert titles.split()[-1] == "Number" and values.split()[-1] == ("–" if expected is None else "50.00")


def test_an_output_that_is_a_file_is_refused(scenes, tmp_path):
    write("people", tmp_path, open_split(scenes, "val"))
    output = next(tmp_path.glob("*.json"))
    with pytest.raises(SystemExit, match=rf"rpcnn: --output must be a folder, {output} is a file"):
        main(["--predictions", str(tmp_path), "--data-root", str(scenes), "--output", str(output)])


def test_images_without_a_prediction(scenes, tmp_path):
    dataset = open_split(scenes, "val")
    write("people", tmp_path, dataset, skip=[2])
    run = lambda missing: evaluate_predictions(make_format("people"), tmp_path, dataset, ParsingEvaluator(20), missing)
    with pytest.raises(ValueError, match=f"{dataset.entries[2].id} of 4 images have no prediction"):
        run("error")
    assert run("skip")["ap_p_50"] == pytest.approx(100) and run("skip")["images"] == 3
    assert run("empty")["ap_p_50"] < 100 and run("empty")["images"] == 4


def test_predictions_without_an_image_are_named(scenes, tmp_path):
    dataset = open_split(scenes, "val")
    write("people", tmp_path, dataset)
    empty = Prediction(np.zeros((4, 4), np.uint8), np.zeros((0, 4, 4), np.uint8), np.zeros(0))
    make_format("people").write(tmp_path, "unknown", empty)
    with pytest.raises(SystemExit, match=r"rpcnn: predictions: unknown in .* belong to no image"):
        main(["--predictions", str(tmp_path), "--data", str(scenes)])


def test_a_prediction_of_another_size_is_named(scenes, tmp_path):
    dataset = open_split(scenes, "val")
    crop = lambda one: Prediction(one.label_map[:-1], one.person_maps[:, :-1], one.scores)
    write("people", tmp_path, dataset, crop)
    with pytest.raises(
        SystemExit, match=f"{dataset.entries[0].id}: ParsingEvaluator: label_map and true_label_map must have"
    ):
        main(["--predictions", str(tmp_path), "--data-root", str(scenes)])


def test_a_folder_that_is_no_data_set_is_refused(scenes, tmp_path):
    write("people", tmp_path, open_split(scenes, "val"))
    with pytest.raises(SystemExit, match=r"rpcnn: .*holds no data set that is recognized"):
        main(["--predictions", str(tmp_path), "--data-root", str(tmp_path)])


def test_help_explains_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--predictions", "--help"])
    assert stop.value.code == 0
    assert "docs/formats.md" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_processes_gives_the_same_metrics(workers, scenes, tmp_path):
    dataset = open_split(scenes, "val")
    write(
        "people",
        tmp_path,
        dataset,
        lambda one: Prediction(np.roll(one.label_map, 3), np.roll(one.person_maps, 3, 1), one.scores),
    )
    run = lambda n: evaluate_predictions(make_format("people"), tmp_path, dataset, ParsingEvaluator(20), workers=n)
    assert run(workers) == run(3)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_in_any_process_names_the_image(workers, scenes, tmp_path):
    dataset = open_split(scenes, "val")
    write("people", tmp_path, dataset)
    broken = tmp_path / f"{dataset.entries[2].id}_labels.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{dataset.entries[2].id}: .*cannot be read"):
        evaluate_predictions(make_format("people"), tmp_path, dataset, ParsingEvaluator(20), workers=workers)
