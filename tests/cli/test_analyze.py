"""python -m rpcnn.analyze on runs of random weights, and the ablation on runs of known numbers."""

import csv
import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
import torch
from PIL import Image

from rpcnn import RPRCNN, load_config
from rpcnn.analysis import ablation, gallery, paper, runs
from rpcnn.analyze import COMMANDS, main
from rpcnn.config import preset_names, to_dict, to_toml
from rpcnn.labels import CIHP
from rpcnn.runtime.checkpoint import save_weights
from rpcnn.train import main as train

TINY = [
    *("--data.options", "train=1", "val=4", "short_side=[80, 96]"),
    *("--inference.test-short-side", "80", "--data.workers", "0", "--model.backbone-width", "0.25"),
    *("--model.fpn-channels", "16", "--model.parsing-channels", "16", "--model.parts", "parsing_head.aspp_channels=16"),
    *(
        "--model.box-channels",
        "32",
        "--inference.rpn-top-test",
        "20",
        "--inference.min-parsing-score",
        "0",
        "--device",
        "cpu",
    ),
    *("--inference.min-box-score", "0"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(tmp_path_factory.mktemp("painted"))


def make_run(folder, data, *changes, results=None):
    """A run folder with random weights."""
    config = load_config("painted", [*TINY, "--data-root", data, *changes])
    torch.manual_seed(config.run.seed)
    folder.mkdir(parents=True)
    save_weights(folder / "model.safetensors", RPRCNN.from_config(config), config, CIHP)
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    if results is not None:
        keys = (*paper.METRICS, "ap_bbox")
        (folder / "results.json").write_text(json.dumps(dict(zip(keys, results, strict=True))))
    return folder


BASELINE = ("--model.no-gse", "--model.no-prsn", "--inference.semantic-mode", "parsing")


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    return make_run(tmp_path_factory.mktemp("runs") / "both-s0", data)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory, data):
    return make_run(tmp_path_factory.mktemp("runs") / "baseline-s0", data, *BASELINE)


@pytest.mark.parametrize("command", ["bounds", "modes", "scores"])
def test_each_command_writes_table_numbers_and_plot(command, run, tmp_path, capsys):
    main([command, str(run), "--output", str(tmp_path)])
    text = (tmp_path / f"{command}.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "|---" in text and json.loads((tmp_path / f"{command}.json").read_text())
    assert min(Image.open(tmp_path / f"{command}.png").size) > 400
    if command == "scores":
        with (tmp_path / "scores.csv").open() as file:
            lines = list(csv.DictReader(file))
        numbers = json.loads((tmp_path / "scores.json").read_text())
        assert len(lines) == numbers["all"]["detections"] > 0
        assert all(0 <= float(line["true_iou"]) <= 1 for line in lines)


def test_modes_beside_a_baseline(run, baseline, tmp_path):
    results = main(["modes", str(run), str(baseline), "--output", str(tmp_path)])
    assert list(results) == ["baseline", "semseg", "parsing", "combine"]
    line = next(line for line in (tmp_path / "modes.md").read_text().split("\n") if line.startswith("| combine"))
    assert f"({results['combine']['miou'] - results['baseline']['miou']:+.1f})"[:4] in line


def test_output_defaults_to_the_run_folder(data, tmp_path):
    folder = make_run(tmp_path / "r", data, *BASELINE)
    main(["gallery", str(folder), "--run.pictures", "1"])
    assert {path.name for path in (folder / "analysis").iterdir()} == {"gallery.md", "gallery.png"}


def test_gallery_shows_images_at_even_steps(run, tmp_path):
    records = main(["gallery", str(run), "--run.pictures", "3", "--output", str(tmp_path)])
    assert len({record["image"] for record in records}) == 3
    assert all(record["people"] > 0 for record in records)
    assert Image.open(tmp_path / "gallery.png").height > gallery.HEIGHT
    assert all(record["image"] in (tmp_path / "gallery.md").read_text() for record in records)


def test_a_sheet_breaks_lines_before_they_are_too_wide():
    triples = [Image.new("RGB", (900, gallery.HEIGHT)) for _ in range(5)]
    labels = CIHP
    three_lines, one_line = gallery.sheet(triples, [1], labels), gallery.sheet(triples[:2], [1], labels)
    assert three_lines.width <= gallery.WIDEST
    assert three_lines.height - one_line.height == 2 * (gallery.HEIGHT + gallery.GAP)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bound"], "must be one of bounds, modes"),
        (["bounds"], "takes a run folder"),
        (["bounds", "nowhere"], "weights: nowhere does not exist"),
        (["scores", "a", "b"], "takes one run folder or model.safetensors, got 2"),
        (["modes", "{baseline}"], "trained without GSE-FPN: it has no global segmentation"),
        (["bounds", "{run}", "--inference.augment"], "inference.augment must be false"),
        (["gallery", "{run}", "--run.pictures", "0"], "run.pictures must be at least 1"),
        (["bounds", "{run}", "--data.dataset", "cihp", "--data-root", "nowhere"], "no folder nowhere"),
        (["ablation", "{run}"], "holds no results.json"),
    ],
)
def test_errors_are_printed(arguments, message, run, baseline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([text.format(run=run, baseline=baseline) for text in arguments])
    assert re.search(message, str(end.value))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_command(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert COMMANDS[command].__doc__.split("\n")[0] in text and "--output" in text and f"{command} RUN" in text


@pytest.mark.slow
def test_true_parsing_and_scores_raise_ap(data, tmp_path):
    """A model after 150 iterations on painted people: it finds people, with poor maps and scores."""
    size = ["--data.options", "train=60", "val=20", "--data.workers", "0", "--data-root", data]
    folder = train(["painted", *size, "--iterations", "150", "--device", "cpu", "--output", str(tmp_path / "run")])
    results = main(["bounds", str(folder), "--output", str(tmp_path / "bounds")])
    plain = results["as predicted"]
    assert plain["ap_p_10"] > 20
    assert results["true parsing"]["ap_p_vol"] > plain["ap_p_vol"] + 10
    assert results["true scores"]["ap_p_vol"] > plain["ap_p_vol"]


# The ablation


@pytest.fixture
def known(monkeypatch):
    """Replace the correlations by known values: a tenth of the run's seed."""
    part = lambda seed: {score: {"pearson": seed / 10, "spearman": None} for score in ("box_score", "score")}
    found = lambda folder, config, arguments, prog: {"matched": part(config.run.seed)}
    monkeypatch.setattr(runs, "cached_correlations", found)


def known_run(folder, results, *changes):
    config = load_config("ablations/painted_both", list(changes))
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    keys = (*paper.METRICS, "ap_bbox")
    (folder / "results.json").write_text(json.dumps(dict(zip(keys, results, strict=True))))
    return str(folder)


def test_ablation_of_known_numbers(known, tmp_path, capsys):
    folders = [
        known_run(tmp_path / "both-s0", [42, 20, 30, 40, 60], "--seed", "0"),
        known_run(tmp_path / "both-s1", [44, 24, 30, 40, 60], "--seed", "1"),
        known_run(tmp_path / "plain-s0", [40, 10, 20, 30, 60], *BASELINE, "--seed", "0"),
        known_run(tmp_path / "plain-s1", [41, 12, 20, 30, 62], *BASELINE, "--seed", "1", "--data.workers", "3"),
    ]
    results = main(["ablation", *folders, "--output", str(tmp_path / "out")])
    assert results["baseline"] == "plain" and list(results["variants"]) == ["plain", "both"]
    assert set(results["differ_in"]) == {"model.gse", "model.prsn", "inference.semantic_mode"}
    both = results["variants"]["both"]
    assert both["seeds"] == [0, 1]
    assert both["mean"]["miou"] == 43 and both["std"]["miou"] == pytest.approx(2**0.5)
    assert both["change"]["miou"] == 2.5
    assert both["change_error"]["miou"] == pytest.approx((2 / 2 + 0.5 / 2) ** 0.5)
    assert both["paper_change"]["ap_p_50"] == pytest.approx(7.0) and both["paper"]["miou"] == 58.2
    assert both["mean"]["score_pearson"] == pytest.approx(0.05) and both["mean"]["score_spearman"] is None
    text = capsys.readouterr().out
    assert "| both  |  0, 1 | 43.0 ± 1.4 | 22.0 ± 2.8 | 30.0 ± 0.0 | 40.0 ± 0.0 | 60.0 ± 0.0 |" in text
    assert "+2.5 ± 1.1" in text and "+7.0" in text and "do not have the same seeds" not in text
    assert min(Image.open(tmp_path / "out" / "ablation.png").size) > 800


def test_ablation_of_one_run_has_no_spread(known, tmp_path, capsys):
    results = main(["ablation", known_run(tmp_path / "one", [1, 2, 3, 4, 5]), "--output", str(tmp_path / "out")])
    assert results["variants"]["one"]["std"]["miou"] is None
    assert "±" not in capsys.readouterr().out.split("Correlation")[0].split("\n", 2)[2]


def test_ablation_reports_how_variants_differ(known, tmp_path, capsys):
    folders = [
        known_run(tmp_path / "a-s0", [1, 2, 3, 4, 5], "--seed", "0"),
        known_run(tmp_path / "b-s1", [1, 2, 3, 4, 5], "--seed", "1", "--iterations", "7"),
    ]
    main(["ablation", *folders, "--output", str(tmp_path / "out"), "--baseline", "b"])
    text = capsys.readouterr().out
    assert "differ in train.iterations." in text and "do not have the same seeds" in text and "Change from b" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--baseline", "c"], "--baseline must be one of a, got 'c'"),
        (["again"], "one variant with one seed, 0"),
    ],
)
def test_ablation_refuses(known, options, message, tmp_path):
    folders = [known_run(tmp_path / "a-s0", [1, 2, 3, 4, 5])]
    if options == ["again"]:
        folders, options = [*folders, known_run(tmp_path / "a-s1", [1, 2, 3, 4, 5])], []
    with pytest.raises(SystemExit, match=message):
        main(["ablation", *folders, *options, "--output", str(tmp_path / "out")])


def test_correlations_are_cached_per_weights(data, tmp_path, monkeypatch, capsys):
    folder = make_run(tmp_path / "r-s0", data, results=[1, 2, 3, 4, 5])
    read = lambda: runs.read_run(folder, ["--device", "cpu"], "test").values
    first = read()
    assert (folder / "analysis.json").exists() and "computing its correlations" in capsys.readouterr().out
    assert read() == first and "computing" not in capsys.readouterr().out
    config = load_config(folder / "config.toml")
    torch.manual_seed(5)
    save_weights(folder / "model.safetensors", RPRCNN.from_config(config), config, CIHP)
    read()
    assert "computing" in capsys.readouterr().out


# What it compares with


ABLATIONS = [name for name in preset_names() if name.startswith("ablations/")]


def test_every_row_of_the_papers_ablations_has_a_preset():
    rows = {name: paper.variant_row(load_config(name)) for name in ABLATIONS}
    assert rows.pop("ablations/lambda_parsing_0_0") is None  # the detector alone: the paper prints –
    assert None not in rows.values()
    tables = (paper.LAMBDA_PARSING, paper.LAMBDA_SEMANTIC, paper.LAMBDA_RESCORING, *paper.COMPONENTS.values())
    assert {row for table in tables for row in table.values()} <= set(rows.values())


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_only_the_rows_settings(name):
    stem = pathlib.PurePath(name).name
    base = "painted" if stem.startswith("painted") else "mhpv2_r50" if stem.startswith("mhpv2") else "cihp_r50"
    one, other = to_dict(load_config(name)), to_dict(load_config(base))
    assert one.pop("variant") == other.pop("variant")
    changed = {f"{g}.{k}" for g in one for k in one[g] if one[g][k] != other[g][k]}
    allowed = {"model.gse", "model.prsn", "inference.semantic_mode"}
    if stem.startswith("lambda"):
        allowed |= {f"loss.{stem[:-4]}"}
        assert one["loss"][stem[:-4]] == float(stem[-3:].replace("_", "."))
    if stem.startswith("painted"):
        allowed |= {"data.dataset", "data.root", "data.options", "train.iterations"}
    assert changed <= allowed
    assert (one["inference"]["semantic_mode"] == "combine") == one["model"]["gse"]


def test_the_papers_changes_are_those_it_prints():
    """The changes printed in brackets in Tables 1, 7 and 8."""
    minus = lambda row, base: tuple(round(a - b, 1) for a, b in zip(row, base, strict=True))
    plain = paper.BOUNDS["as predicted"]
    assert [minus(row, plain) for row in list(paper.BOUNDS.values())[1:]] == [
        (2.2, -6.6, -2.8, 1.4), (31.6, 26.8, 29.3, 29.7), (1.2, 9.1, 6.5, 0.0),
    ]  # fmt: skip
    for table, printed in zip(
        paper.COMPONENTS.values(),
        (
            [(2.0, 2.8, 1.2, 1.2), (0.2, 5.7, 3.3, 0.4), (2.0, 7.0, 4.0, 1.3)],
            [(1.8, 2.3, 0.8, 1.0), (0.2, 13.0, 4.6, 0.3), (1.8, 13.9, 4.9, 1.3)],
        ),
        strict=True,
    ):
        assert [minus(row, table[False, False]) for row in list(table.values())[1:]] == printed
    assert minus(paper.MODES["combine"], paper.MODES["baseline"]) == (2.0, 0.9, 2.0)


def test_changes_of_a_variant_without_a_row_are_unknown():
    config = load_config("ablations/cihp_both", ["--loss.lambda-parsing", "7"])
    assert paper.variant_row(config) is None
    finished = [runs.Run(pathlib.Path("x"), config, dict.fromkeys((*ablation.COLUMNS, *runs.CORRELATIONS), 1.0))]
    found = ablation.summarize(runs.group(finished), runs.group(finished)[0])
    assert set(found["variants"]["x"]["paper_change"].values()) == {None}
    assert np.isfinite(found["variants"]["x"]["mean"]["miou"]) and dataclasses.is_dataclass(config)


def test_curves_of_two_runs(data, tmp_path):
    folders = []
    for rate in ("0.01", "0.02"):
        folder = make_run(tmp_path / rate, data, "--train.learning-rate", rate)
        lines = [{"iteration": i, "loss": 5.0 / i, "gradient_norm": 1.0, "learning_rate": 0.1} for i in (1, 2)]
        lines += [{"iteration": 2, "miou": 20.0}, {"iteration": 3, "miou": 10.0}, {"iteration": 4, "loss": None}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
        folders.append(folder)
    results = main(["curves", *map(str, folders), "--output", str(tmp_path / "out")])
    first = results[str(folders[0])]
    assert (first["loss"], first["last_miou"], first["best_miou"], first["best_iteration"]) == (2.5, 10.0, 20.0, 2)
    text = (tmp_path / "out" / "curves.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| train.learning_rate"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["train.learning_rate", "0.01", "0.02"]
    assert min(Image.open(tmp_path / "out" / "curves.png").size) > 400


def test_curves_need_a_run(tmp_path):
    with pytest.raises(SystemExit, match=r"has no metrics\.jsonl; give the folder of a run"):
        main(["curves", str(tmp_path)])
