"""Steps that are not finite are skipped and named; a run goes back, and gives up in the end."""

import json
import math

import pytest
import torch
from helpers.commands import TINY
from safetensors.torch import load_file

from rpcnn.config import load_config
from rpcnn.runtime.checkpoint import load_snapshot
from rpcnn.train import main as train
from rpcnn.training import trainer as room
from rpcnn.training.faults import FaultFinder, fill_momentum, skip_if
from rpcnn.training.step import Step


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(tmp_path_factory.mktemp("painted"))


class Poison:
    """Makes the gradient not finite in the calls of `Step` with these numbers, from 1; `value` goes into a loss."""

    def __init__(self, monkeypatch, calls, value=math.nan):
        self.calls, self.number = calls, 0
        honest = Step.__call__

        def spoilt(step, images, targets):
            losses = honest(step, images, targets)
            self.number += 1
            if self.number in self.calls:
                next(p for p in step.model.parameters() if p.grad is not None).grad.fill_(value)
                losses["parsing"] = losses["parsing"] * value
            return losses

        monkeypatch.setattr(Step, "__call__", spoilt)


def run(data, folder, *extra):
    options = [*TINY, "--run.log-every", "1", "--run.no-evaluate", "--data-root", data, "--output", str(folder), *extra]
    return train(["painted", *options])


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_step_changes_nothing_and_is_named(optimizer, value, data, tmp_path, monkeypatch, capsys):
    extra = ["--train.optimizer", optimizer, "--iterations"]
    before = load_file(run(data, tmp_path / "one", *extra, "1") / "model.safetensors")
    Poison(monkeypatch, {2}, value)
    folder = run(data, tmp_path / "two", *extra, "2")
    after = load_file(folder / "model.safetensors")
    moved = {key for key, tensor in before.items() if not torch.equal(tensor, after[key])}
    assert all("running" in key or "tracked" in key for key in moved)  # the forward pass has seen the images
    said = capsys.readouterr().out
    assert "rpcnn: iteration 2 skipped: loss parsing is not finite; images " in said
    assert "1 steps skipped" in said and records(folder)[-1]["loss"] is None


def test_the_first_step_may_be_the_bad_one(data, tmp_path, monkeypatch):
    """torch's fused SGD would keep momentum that nobody has written."""
    Poison(monkeypatch, {1})
    folder = run(data, tmp_path / "run", "--train.optimizer", "sgd", "--iterations", "2")
    assert all(value.isfinite().all() for value in load_file(folder / "model.safetensors").values())
    assert [record["loss"] is None for record in records(folder)] == [True, False]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_skipped_step_leaves_weights_and_state_as_they_are(optimizer):
    weight = torch.nn.Parameter(torch.ones(3))
    kwargs = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    fused = optimizer([weight], lr=0.1, fused=True, **kwargs)
    fill_momentum(fused)
    for bad in (True, False, True):
        weight.grad = torch.full((3,), math.nan if bad else 1.0)
        before = weight.detach().clone()
        state = {key: value.clone() for key, value in fused.state[weight].items()}
        skip_if(fused, torch.tensor(bad))
        fused.step()
        assert torch.equal(before, weight.detach()) == bad
        if bad and state:
            assert all(torch.equal(value, fused.state[weight][key]) for key, value in state.items())


def test_zero_momentum_gives_the_first_step_of_none():
    steps = []
    for fill in (False, True):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 7))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.1, fused=True)
        if fill:
            fill_momentum(optimizer)
        for _ in range(3):
            weight.grad = weight.detach().sin()
            optimizer.step()
        steps.append(weight.detach().clone())
    assert torch.equal(*steps)


def test_many_bad_steps_go_back_to_the_snapshot_with_half_the_rate(data, tmp_path, monkeypatch, capsys):
    Poison(monkeypatch, {3, 4})
    folder = run(data, tmp_path / "run", "--train.max-skips", "1", "--iterations", "4")
    said = capsys.readouterr().out
    assert "gradients or weights are not finite; back to iteration 2 with 0.5 of the learning rate" in said
    rates = {record["iteration"]: record["learning_rate"] for record in records(folder) if "learning_rate" in record}
    preset = load_config("painted").train
    whole = preset.learning_rate * 2 / 16 / preset.warmup_iterations
    assert list(rates) == [1, 2, 3, 4]
    assert rates[4] == pytest.approx(4 * whole / 2, rel=0.02) and rates[2] == pytest.approx(2 * whole, rel=0.02)
    assert load_snapshot(folder)["returns"] == 1


def test_a_run_that_never_recovers_stops_and_keeps_its_snapshot(data, tmp_path, monkeypatch, capsys):
    Poison(monkeypatch, range(3, 1000))
    with pytest.raises(SystemExit, match=r"also after going back 3 times.*lower train\.learning_rate"):
        run(data, tmp_path / "run", "--train.max-skips", "0", "--iterations", "4")
    assert load_snapshot(tmp_path / "run")["iteration"] == 2
    assert all(value.isfinite().all() for value in load_file(tmp_path / "run" / "model.safetensors").values())


def test_weights_that_are_not_finite_are_never_written(data, tmp_path, monkeypatch, capsys):
    honest, spoilt = room.Trainer.update, []

    def update(trainer, losses):
        result = honest(trainer, losses)
        if trainer.iteration == 2 and not spoilt:  # finite gradients, but the weights overflow
            spoilt.append(trainer.parameters[0].data.fill_(math.inf))
        return result

    monkeypatch.setattr(room.Trainer, "update", update)
    folder = run(data, tmp_path / "run", "--iterations", "3")
    assert "iteration 2: gradients or weights are not finite; back to iteration 0" in capsys.readouterr().out
    assert load_snapshot(folder)["iteration"] == 3


def test_losses_are_averaged_over_the_steps_that_count(data, tmp_path, monkeypatch):
    honest = [r["loss"] for r in records(run(data, tmp_path / "a", "--iterations", "1"))]
    Poison(monkeypatch, {2})
    (record,) = records(run(data, tmp_path / "b", "--iterations", "2", "--run.log-every", "2"))
    assert record["loss"] == pytest.approx(honest[0]) and record["skipped_steps"] == 1


def test_a_fault_names_at_most_eight_images():
    finder = FaultFinder(torch.device("cpu"))
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(math.inf)}
    finder.add(7, torch.tensor(True), losses, [f"image{n}" for n in range(10)])
    (fault,) = finder.found(7)
    assert fault.row == 1 and fault.text.endswith("image7 and 2 more") and "loss b is not finite" in fault.text
