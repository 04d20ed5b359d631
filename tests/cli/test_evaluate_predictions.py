"""python -m rpcnn.evaluate --predictions: evaluate stored predictions on a data set."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from helpers.metrics import RightNumber

from rpcnn.data.datasets import open_split
from rpcnn.data.painted.scene import write_cihp
from rpcnn.evaluate import main
from rpcnn.evaluation.predictions import empty_prediction, evaluate_predictions
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
    undefined = {"cihp": PEOPLE, "labels": (*PEOPLE, "ap_r_50", "ap_r_vol")}.get(name, ())
    expected = dict.fromkeys(values, 100) | dict.fromkeys(undefined)
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("name", FORMATS)
def test_truth_as_prediction_gives_100(name, scenes, tmp_path, capsys):
    write(name, tmp_path, open_split(scenes, "val"))
    output = tmp_path / "out" / "of_mine"
    results = main(["--predictions", str(tmp_path), "--data-root", str(scenes), "--output", str(output)])
    checked_hundred(results, name)
    assert json.loads((output / "results.json").read_text()) == results | {"format": name}
    printed = capsys.readouterr().out
    assert "AP^r_vol" in printed and ("differ from overlapping" in printed) == (
        name not in ("people", "coco", "labels")
    )
    assert ("holds no people" in printed) == (name == "labels")


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


def spoil(path, change):
    """Change the JSON of a file; `change` may also return the text to write."""
    record = json.loads(path.read_text())
    text = change(record)
    path.write_text(text if isinstance(text, str) else json.dumps(record))


def first_person(key, value):
    return lambda record: record["people"][0].update({key: value})


def first(kind, key, value):
    return lambda record: record[kind][0].update({key: value})


def twice(kind):
    return lambda record: record[kind].append(record[kind][0] | {"parts": []})


def in_part(*path):
    def change(record):
        inner = record["images"][0]["parts"][0]
        for key in path[:-2]:
            inner = inner[key]
        inner[path[-2]] = path[-1]

    return change


SPOILT = {
    "score true": ("people", first_person("score", True), "the score of person 1 must be a finite number, got True"),
    "score as text": ("people", first_person("score", "0.9"), "must be a finite number, got '0.9'"),
    "score infinite": ("people", lambda r: json.dumps(r).replace("1.0", "1e999", 1), "a finite number, got inf"),
    "score NaN": ("people", first_person("score", float("nan")), "is not JSON: NaN is no number"),
    "score huge": ("people", first_person("score", 10**400), "must be a finite number|is not JSON"),
    "box of three": ("people", first_person("box", [1, 2, 3]), "the box of person 1 must be four numbers"),
    "box null": ("people", first_person("box", None), "the box of person 1 must be four numbers, got None"),
    "box turned": ("people", first_person("box", [5, 5, 1, 1]), "must have x1 <= x2 and y1 <= y2"),
    "people null": ("people", lambda r: r.update(people=None), "must hold 'people', a list of objects"),
    "more people than maps": ("people", lambda r: r.update(people=r["people"] * 5000), "_person_.*not found"),
    "a million people": ("people", lambda r: r.update(people=[{"score": 1}] * 10**6), "at most 65535 people"),
    "a key twice": ("people", lambda r: '{"people": [], "people": []}', "the key 'people' occurs twice"),
    "brackets": ("people", lambda r: "[" * 100_000, "is not JSON"),
    "images null": ("coco", lambda r: r.update(images=None), "images must be a list of objects, got None"),
    "images of numbers": ("coco", lambda r: r.update(images=[1]), r"images\[0\] must be an object, got 1"),
    "annotations a number": ("coco", lambda r: r.update(annotations=3), "annotations must be a list of objects, got 3"),
    "an id twice": ("coco", twice("images"), r"images\[4\].id '1' occurs twice"),
    "an id that is a list": ("coco", first("images", "id", []), "images.0..id must be a text or an integer, got list"),
    "3.6 gigapixels": ("coco", lambda r: r["images"][0].update(height=60_000, width=60_000), "must have the image's"),
    "10^12 pixels": ("coco", lambda r: r["images"][0].update(height=10**6, width=10**6), "must have the image's"),
    "height as text": ("coco", first("images", "height", "64"), "height must be an integer in .* got '64'"),
    "height infinite": (
        "coco",
        lambda r: r["images"][0].update(height="H") or json.dumps(r).replace('"H"', "1e999"),
        "height must be an integer in .*, got inf",
    ),
    "height -1": ("coco", first("images", "height", -1), "height must be an integer"),
    "parts a number": ("coco", first("images", "parts", 3), "parts must be a list of objects, got 3"),
    "a part of class true": ("coco", in_part("category_id", True), "parts.0..category_id must be an integer in 1..254"),
    "a part without outline": ("coco", in_part("segmentation", None), r"parts\[0\].segmentation: must be polygons"),
    "counts a list": ("coco", in_part("segmentation", "counts", [1]), "run lengths must make up the"),
    "a file_name twice": (
        "coco",
        lambda r: r["images"].append(r["images"][0] | {"id": 99}),
        r"images\[4\].file_name '.*' occurs twice, apart",
    ),
    "a file_name that is a number": ("coco", first("images", "file_name", 3), r"images\[0\].file_name must be a text"),
    "an annotation of nobody's image": (
        "coco",
        lambda r: r["annotations"][1].update(image_id=99),
        r"annotations\[1\].image_id 99 is no image's",
    ),
    "parts missing": ("coco", lambda r: r["annotations"][0].pop("parts"), r"annotations\[0\].parts is missing"),
    "a bbox of width -1": ("coco", first("annotations", "bbox", [0, 0, -1, 5]), "0..bbox .*a width or height below"),
    "a bbox of text": ("coco", first("annotations", "bbox", "0 0 5 5"), r"annotations\[0\].bbox must be four numbers"),
    "a score of null": ("coco", first("annotations", "score", None), "annotations.0..score must be a finite .*None"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_one_line_with_its_path(name, scenes, tmp_path, capsys):
    format, change, message = SPOILT[name]
    write(format, tmp_path, open_split(scenes, "val"))
    path = sorted(tmp_path.glob("*.json"))[0]
    spoil(path, change)
    with pytest.raises(SystemExit, match=message) as ended:
        main(["--predictions", str(tmp_path), "--data-root", str(scenes), "--workers", "1"])
    assert ended.value.code == 2 and str(tmp_path) in str(ended.value)
    assert len(str(ended.value)) < 600 and "\n" not in str(ended.value)


@pytest.mark.parametrize(
    ("format", "text"),
    [("mhp", "nan\n"), ("mhp", "1e999\n"), ("mhp", "1_0\n"), ("mhp", "\xff"), ("cihp", "1 nan\n"), ("cihp", "nan 1\n")],
)
def test_spoilt_lines_of_text_are_named(format, text, scenes, tmp_path):
    write(format, tmp_path, open_split(scenes, "val"))
    path = sorted(tmp_path.rglob("*.txt"))[0]
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(SystemExit, match=f"{path}: (line 1 must be|cannot be read)"):
        main(["--predictions", str(tmp_path), "--data-root", str(scenes), "--workers", "1"])


def test_damaged_truth_is_an_error_unless_it_may_be_left_out(scenes, tmp_path):
    root = shutil.copytree(scenes, tmp_path / "scenes")
    dataset = open_split(root, "val")
    write("people", tmp_path / "people", dataset)
    truth = sorted((root / "Validation" / "Category_ids").glob("*.png"))[1]
    truth.write_bytes(truth.read_bytes()[:60])
    arguments = ["--predictions", str(tmp_path / "people"), "--data-root", str(root), "--workers", "1"]
    with pytest.raises(SystemExit, match=rf"data: 1 images of the data set cannot be used: {truth}") as ended:
        main(arguments)
    assert ended.value.code == 2
    assert main([*arguments, "--missing", "skip"])["images"] == 3


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


@pytest.mark.parametrize("name", FORMATS)
def test_no_prediction_at_all_is_an_error(name, scenes, tmp_path):
    arguments = ["--predictions", str(tmp_path), "--data-root", str(scenes), "--format", name, "--missing", "skip"]
    if name == "coco":
        (tmp_path / "predictions.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(SystemExit, match="none of the 4 images of the data set has a prediction"):
        main(arguments)


def test_predictions_without_a_person_in_any_image_are_named(scenes, tmp_path, caplog):
    dataset = open_split(scenes, "val")
    nobody = lambda one: Prediction(one.label_map, one.person_maps[:0], one.scores[:0])
    write("coco", tmp_path, dataset, nobody)
    results = evaluate_predictions(make_format("coco"), tmp_path, dataset, ParsingEvaluator(20), workers=1)
    assert results["ap_p_50"] == 0 and results["miou"] == pytest.approx(100)
    assert f"none of 4 images has a predicted person in {tmp_path}" in caplog.text


def test_label_maps_of_background_alone_are_named(scenes, tmp_path, caplog):
    dataset = open_split(scenes, "val")
    write("labels", tmp_path, dataset, lambda one: empty_prediction(one.label_map.shape))
    evaluate_predictions(make_format("labels"), tmp_path, dataset, ParsingEvaluator(20), workers=1)
    assert "none of 4 images has a predicted part" in caplog.text


@pytest.mark.parametrize("name", ["people", "coco"])
def test_a_byte_order_mark_is_read_over(name, scenes, tmp_path):
    write(name, tmp_path, open_split(scenes, "val"))
    for path in tmp_path.glob("*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert main(["--predictions", str(tmp_path), "--data-root", str(scenes), "--workers", "1"])["miou"] == 100


@pytest.mark.parametrize("name", ["cihp", "labels"])
def test_images_without_people_cannot_be_left_out_where_nobody_knows_people(name, scenes, tmp_path):
    write(name, tmp_path, open_split(scenes, "val"))
    with pytest.raises(SystemExit, match="skip_empty: leaves out images without predicted people"):
        main(["--predictions", str(tmp_path), "--data-root", str(scenes), "--skip-empty"])


def test_the_order_in_a_file_changes_nothing_where_scores_differ(scenes, tmp_path):
    dataset, noise = open_split(scenes, "val"), np.random.default_rng(0)

    def noisy(perfect):
        people = np.where(noise.random(perfect.person_maps.shape) < 0.3, 3, perfect.person_maps).astype(np.uint8)
        return Prediction(perfect.label_map, people, noise.random(len(people)))

    write("coco", tmp_path, dataset, noisy)
    run = lambda: evaluate_predictions(make_format("coco"), tmp_path, dataset, ParsingEvaluator(20), workers=1)
    expected = run()
    for shuffle in range(3):
        spoil(tmp_path / "predictions.json", lambda r, s=shuffle: np.random.default_rng(s).shuffle(r["annotations"]))
        assert run() == expected
