"""Evaluation while training: the curve, the best weights, the moving average, the early end."""

import json

import pytest
import torch
from helpers.commands import TINY
from safetensors.torch import load_file

from rpcnn.config import load_config
from rpcnn.evaluate import main as evaluate
from rpcnn.runtime.checkpoint import load_snapshot
from rpcnn.train import main as train
from rpcnn.training import watch as room
from rpcnn.training.ema import MovingAverage


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(tmp_path_factory.mktemp("painted"))


def run(data, folder, *extra):
    options = [*TINY, "--run.log-every", "1", "--run.no-evaluate", "--data-root", data, "--output", str(folder)]
    return train(["painted", *options, "--iterations", "6", *extra])


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def watched(data, tmp_path_factory):
    return run(
        data, tmp_path_factory.mktemp("runs") / "watched", "--run.evaluate-every", "2", "--train.ema-decay", "0.9"
    )


def test_evaluations_are_in_the_log_and_change_nothing(data, watched, tmp_path):
    assert [record["iteration"] for record in records(watched) if "miou" in record] == [2, 4]
    plain = run(data, tmp_path / "plain")
    whole, same = (load_file(folder / "model.safetensors") for folder in (plain, watched))
    assert all(torch.equal(whole[key], same[key]) for key in whole)


def test_the_moving_average_has_its_own_weights_and_evaluation(watched):
    assert all("ema_miou" in record for record in records(watched) if "miou" in record)
    last, average = load_file(watched / "model.safetensors"), load_file(watched / "ema.safetensors")
    assert last.keys() == average.keys() and any(not torch.equal(last[key], average[key]) for key in last)
    assert load_snapshot(watched)["ema"]["updates"] == 6


def test_the_best_weights_give_the_best_metric_when_evaluated(watched, tmp_path):
    best = max(record[key] for record in records(watched) for key in ("miou", "ema_miou") if key in record)
    results = evaluate([str(watched / "best.safetensors"), "--output", str(tmp_path), "--device", "cpu"])
    assert results["miou"] == pytest.approx(best)


def test_a_continued_run_remembers_its_evaluations(data, watched, tmp_path):
    folder = tmp_path / "broken"
    options = ["--run.evaluate-every", "2", "--train.ema-decay", "0.9"]
    run(data, folder, *options)
    (folder / "state-6.pt").unlink()
    kept = [record for record in records(folder) if record["iteration"] <= 4 and "miou" not in record]
    kept += [record for record in records(folder) if record["iteration"] == 2 and "miou" in record]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    run(data, folder, *options, "--resume", "auto")  # killed during the evaluation of iteration 4, which comes again
    again = [record["miou"] for record in records(folder) if "miou" in record]
    assert again == [record["miou"] for record in records(watched) if "miou" in record]
    for name in ("model.safetensors", "ema.safetensors"):
        whole, same = load_file(watched / name), load_file(folder / name)
        assert all(torch.equal(whole[key], same[key]) for key in whole)


def test_training_ends_early_without_progress(data, tmp_path, monkeypatch, capsys):
    values = iter([5.0, 4.0, 5.0, 9.0])
    monkeypatch.setattr(room, "evaluate", lambda pipeline: {"miou": next(values)})
    folder = run(data, tmp_path / "run", "--run.evaluate-every", "1", "--run.patience", "2")
    assert [record["miou"] for record in records(folder) if "miou" in record] == [5.0, 4.0, 5.0]
    assert "no better miou in 2 evaluations; training ends early" in capsys.readouterr().out
    assert load_snapshot(folder)["iteration"] == 3


def test_unknown_metrics_and_patience_for_nothing_are_errors(data, tmp_path):
    with pytest.raises(SystemExit, match=r"run\.best_metric: must be one of miou, .*, got 'iou'"):
        run(data, tmp_path / "run", "--run.best-metric", "iou")
    with pytest.raises(ValueError, match=r"run\.patience counts the evaluations of run\.evaluate_every, which is 0"):
        load_config("painted", ["--run.patience", "2"])


def test_the_average_forgets_the_first_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, 0.5)
    for value, expected in ((1.0, None), (1.0, None), (3.0, None)):
        model.weight.data.fill_(value)
        before = average.model.weight.item()
        kept = min(0.5, (1 + average.updates) / (10 + average.updates))
        average.update(model)
        expected = kept * before + (1 - kept) * value
        assert average.model.weight.item() == pytest.approx(expected)
    assert average.model.weight.requires_grad is False and average.updates == 3
