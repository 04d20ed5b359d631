"""The three commands on a handful of painted scenes."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.commands import TINY
from PIL import Image
from safetensors.torch import load_file

from rpcnn import Predictor
from rpcnn.analysis.trained import open_trained
from rpcnn.config import Config
from rpcnn.data.painted.scene import write_cihp
from rpcnn.evaluate import main as evaluate
from rpcnn.inference.load import load_pipeline
from rpcnn.inference.sources import find_pictures
from rpcnn.labels import CIHP
from rpcnn.model.fpn import FPN
from rpcnn.model.resnet import ResNet
from rpcnn.pictures import load_picture
from rpcnn.predict import main as predict
from rpcnn.runtime.checkpoint import load_weights, save_weights
from rpcnn.train import main as train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(tmp_path_factory.mktemp("painted"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """A finished run of four iterations."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train(["painted", *TINY, "--data-root", data, "--iterations", "4", "--output", str(folder)])


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_writes_the_documented_files(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.toml", "environment.txt", "metrics.jsonl", "model.safetensors", "results.json"} <= names
    assert {"state-2.pt", "state-4.pt", "pictures"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert len(list((run / "pictures").glob("*.png"))) == 1
    progress = [r for r in records(run) if "loss" in r]
    assert [r["iteration"] for r in progress] == [2, 4]
    expected = {
        "loss_rpn_objectness",
        "loss_parsing",
        "loss_semantic",
        "loss_rescoring",
        "images_per_second",
        "data_wait",
    }
    assert expected | {"eta_seconds", "memory_gib", "learning_rate"} <= set(progress[0])
    results = json.loads((run / "results.json").read_text())
    assert {"miou", "pixel_accuracy", "mean_accuracy", "ap_p_50", "ap_p_vol", "pcp_50", "ap_bbox"} <= set(results)


def test_resuming_gives_the_unbroken_run_bit_for_bit(run, data, tmp_path):
    folder = tmp_path / "broken"
    arguments = [
        "painted",
        *TINY,
        "--data-root",
        data,
        "--iterations",
        "4",
        "--output",
        str(folder),
        "--run.no-evaluate",
    ]
    train(arguments)
    (folder / "state-4.pt").unlink()  # as if the run had stopped after iteration 2
    (folder / "model.safetensors").unlink()
    train([*arguments, "--resume", "auto"])
    whole, resumed = load_file(run / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_damaged_snapshot_is_skipped(run, data, tmp_path, capsys):
    folder = tmp_path / "damaged"
    arguments = ["painted", *TINY, "--data-root", data, "--output", str(folder), "--run.no-evaluate", "--iterations"]
    train([*arguments, "4"])
    (folder / "state-4.pt").write_bytes(b"not a snapshot")
    train([*arguments, "4", "--resume", "auto"])
    assert "state-4.pt cannot be used" in capsys.readouterr().out
    whole, resumed = load_file(run / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_run_is_never_overwritten(run, data):
    with pytest.raises(SystemExit, match="already holds a run; use --resume auto"):
        train(["painted", *TINY, "--data-root", data, "--iterations", "4", "--output", str(run)])


def test_evaluate_gives_what_training_reported(run, tmp_path):
    results = evaluate([str(run), "--output", str(tmp_path), "--data.workers", "0", "--device", "cpu"])
    reported = json.loads((run / "results.json").read_text())
    assert results["miou"] == pytest.approx(reported["miou"])
    assert results["ap_p_vol"] == pytest.approx(reported["ap_p_vol"])
    assert (tmp_path / "results.json").exists()


@pytest.fixture
def nondeterministic():
    """Restore the determinism setting after the test."""
    yield
    torch.use_deterministic_algorithms(False)


def open_by_evaluate(run, arguments, monkeypatch):
    from rpcnn import evaluate as module

    opened = []
    monkeypatch.setattr(module, "evaluate", lambda pipeline, folder: opened.append(pipeline.model) or {})
    monkeypatch.setattr(module, "format_table", lambda *rest: "")
    evaluate([str(run), *arguments])
    return opened[0]


def open_by_analysis(run, arguments, monkeypatch):
    return open_trained(run, arguments, "test").model


def open_by_predictor(run, arguments, monkeypatch):
    return Predictor(run, "cpu").pipeline.model


@pytest.mark.parametrize("opened_by", [open_by_evaluate, open_by_analysis, open_by_predictor])
def test_every_command_keeps_channels_innermost(opened_by, run, monkeypatch):
    model = opened_by(run, ["--device", "cpu"], monkeypatch)
    weight = model.fpn.output[0][0].weight
    assert weight.shape[1:] != (1, 1, 1) and weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.training


@pytest.mark.parametrize("opened_by", [open_by_evaluate, open_by_analysis])
def test_deterministic_flag_works_in_every_command(opened_by, run, monkeypatch, nondeterministic):
    opened_by(run, ["--device", "cpu", "--run.deterministic"], monkeypatch)
    assert torch.are_deterministic_algorithms_enabled()


@pytest.fixture(scope="module")
def picture(data):
    return sorted(pathlib.Path(data).rglob("Validation/Images/*.jpg"))[0]


def test_predict_writes_four_files_that_agree(run, picture, tmp_path):
    predict([str(picture), "--weights", str(run), "--output", str(tmp_path), "--device", "cpu"])
    labels = Image.open(tmp_path / f"{picture.stem}_labels.png")
    assert labels.mode == "P" and labels.size == Image.open(picture).size
    values = np.array(labels)
    result = Predictor(run, "cpu")(picture)
    assert np.array_equal(values, result.label_map.numpy())
    assert labels.getpalette()[:6] == [0, 0, 0, *result.label_set.palette[1]]
    assert np.array_equal(np.array(Image.open(tmp_path / f"{picture.stem}_instances.png")), result.instance_map.numpy())
    record = json.loads((tmp_path / f"{picture.stem}.json").read_text())
    assert len(record["people"]) == len(result)
    assert {"box", "score", "box_score", "iou_score", "parts"} <= set((record["people"] or [dict.fromkeys(
        ("box", "score", "box_score", "iou_score", "parts"))])[0])  # fmt: skip
    assert (tmp_path / f"{picture.stem}_overlay.png").exists()


def test_predict_goes_on_after_an_unreadable_picture(run, picture, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"not a picture")
    (tmp_path / "in" / "b.jpg").write_bytes(picture.read_bytes())
    with pytest.raises(SystemExit, match=r"not parsed:\n.*a\.jpg cannot be read"):
        predict([str(tmp_path / "in"), "--weights", str(run), "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert (tmp_path / "out" / "b.json").exists()


def test_the_predictor_takes_paths_images_arrays_and_lists(run, picture):
    predictor = Predictor(run, "cpu")
    array = load_picture(picture)
    a, b, c = predictor(picture), predictor(Image.open(picture)), predictor([array])[0]
    assert torch.equal(a.label_map, b.label_map) and torch.equal(a.label_map, c.label_map)
    for wrong in (array[..., :2], array.astype(np.float32), 3):
        with pytest.raises(ValueError, match="image: must be"):
            predictor(wrong)


@pytest.mark.parametrize(("precision", "expected"), [("auto", torch.float32), ("bf16", torch.bfloat16)])
def test_prediction_follows_the_precision(run, picture, precision, expected):
    loaded = load_weights(run)
    config = dataclasses.replace(loaded.config, run=dataclasses.replace(loaded.config.run, precision=precision))
    pipeline = load_pipeline(loaded, config, torch.device("cpu"))
    seen = []
    pipeline.model.box_head.fc6.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    pipeline(torch.from_numpy(load_picture(picture)).permute(2, 0, 1))
    assert seen == [expected]


def test_gray_transparent_palette_and_turned_pictures(tmp_path):
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    for mode in ("L", "RGBA", "P", "CMYK", "1"):
        path = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        colors.convert(mode).save(path)
        assert load_picture(path).shape == (20, 30, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    colors.save(tmp_path / "turned.jpg", exif=exif)
    assert load_picture(tmp_path / "turned.jpg").shape == (30, 20, 3)


def test_sources(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.path.name for p in find_pictures([str(tmp_path)])] == ["a.JPG", "b.png"]
    assert [p.path.name for p in find_pictures([str(tmp_path / "*.png"), str(tmp_path)])] == ["b.png", "a.JPG"]
    with pytest.raises(ValueError, match="no image, folder of images or pattern"):
        find_pictures([str(tmp_path / "none*")])


def test_missing_foreign_or_nan_weights_raise(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        Predictor(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"1234567890")
    with pytest.raises(ValueError, match="not a safetensors file"):
        Predictor(tmp_path / "bad.safetensors")
    model = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(model.bias, math.nan)
    save_weights(tmp_path / "nan.safetensors", model, Config(), CIHP)
    with pytest.raises(ValueError, match=r"not finite, in bias"):
        Predictor(tmp_path / "nan.safetensors")


@pytest.mark.parametrize("module", ["train", "evaluate", "predict", "info"])
def test_help_explains_itself(module):
    done = subprocess.run([sys.executable, "-m", f"rpcnn.{module}", "--help"], capture_output=True, text=True)
    assert f"rpcnn.{module}" in done.stdout
    if module in ("train", "evaluate"):
        assert "--train.iterations" in done.stdout and "Optimizer steps" in done.stdout


def test_bf16_stays_close_to_fp32(data, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        extra = [
            "--precision",
            precision,
            "--iterations",
            "2",
            "--output",
            str(tmp_path / precision),
            "--run.no-evaluate",
        ]
        losses[precision] = records(train(["painted", *TINY, "--data-root", data, *extra]))[-1]["loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


@pytest.mark.parametrize("really", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compile_means_the_backbone_and_the_pyramid(really, data, tmp_path, monkeypatch):
    compiled, compile_module = [], torch.nn.Module.compile

    def compile(module):
        compiled.append(module)
        if really:
            compile_module(module)

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    extra = ["--iterations", "2", "--train.accumulate", "2", "--run.no-evaluate"]
    extra += [
        "--data.options",
        "train=8",
        "val=3",
        "short_side=[96, 96]",
        "--data.short-side",
        "96",
        "96",
    ]  # each size is compiled anew
    arguments = ["painted", *TINY, "--data-root", data, *extra]
    plain = train([*arguments, "--output", str(tmp_path / "plain")])
    assert compiled == []
    folder = train([*arguments, "--output", str(tmp_path / "compiled"), "--run.compile"])
    assert [type(module) for module in compiled] == [ResNet, FPN]
    assert records(folder)[-1]["loss"] == pytest.approx(records(plain)[-1]["loss"], rel=1e-3)
    assert load_file(folder / "model.safetensors").keys() == load_file(plain / "model.safetensors").keys()


@pytest.mark.slow
def test_torchrun_with_gloo_equals_one_process(data, tmp_path):
    """Two processes with one image each equal one process with two, for scenes of different sizes and scales."""
    extra = [*TINY, "--data-root", data, "--iterations", "4", "--run.log-every", "1"]
    extra += ["--model.backbone-norm", "gn"]  # batch statistics are each process's own
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    losses = []
    for launcher, name in (([], "one"), (["-m", "torch.distributed.run", "--nproc_per_node=2"], "two")):
        folder = tmp_path / name
        command = [sys.executable, *launcher, "-m", "rpcnn.train", "painted", *extra, "--output", str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        losses.append([{k: v for k, v in r.items() if k.startswith("loss")} for r in records(folder) if "loss" in r])
        assert json.loads((folder / "results.json").read_text())["images"] == 3
    for one, two in zip(*losses, strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cihp_r50", "--data-root", "nowhere"], r"rpcnn: CIHP: no folder nowhere.*Training"),
        (["cihp_mobilenet", "--data-root", "SCENES", "--backbone-weights", "nothing.pth"], r"rpcnn: .*nothing\.pth"),
    ],
)
def test_missing_files_end_the_command_in_one_line(arguments, message, tmp_path):
    write_cihp(tmp_path / "scenes", train=1, val=1, size=(64, 80), workers=1)
    arguments = [str(tmp_path / "scenes") if word == "SCENES" else word for word in arguments]
    with pytest.raises(SystemExit, match=message):
        train([*arguments, "--output", str(tmp_path / "run")])
