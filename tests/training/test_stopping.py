"""Signals: the step is finished, a snapshot written, and the run continues bit for bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.commands import TINY
from safetensors.torch import load_file

from rpcnn.runtime.checkpoint import load_snapshot
from rpcnn.train import main as train
from rpcnn.training.signals import Stopped, StopRequest
from rpcnn.training.step import Step


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(tmp_path_factory.mktemp("painted"))


def arguments(data, folder, *extra):
    quiet = ["--run.no-evaluate", "--run.save-every", "100"]
    return ["painted", *TINY, *quiet, "--data-root", data, "--output", str(folder), "--iterations", "4", *extra]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return load_file(train(arguments(data, tmp_path_factory.mktemp("runs") / "whole")) / "model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_writes_a_snapshot_and_the_run_continues_bit_for_bit(
    number, data, whole, tmp_path, monkeypatch, capsys
):
    honest, calls = Step.__call__, []

    def interrupted(step, images, targets):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return honest(step, images, targets)

    monkeypatch.setattr(Step, "__call__", interrupted)
    with pytest.raises(SystemExit) as stopped:
        train(arguments(data, tmp_path / "run"))
    assert stopped.value.code == 128 + number
    text = f"{number.name}: snapshot of iteration 2 written; --resume auto continues"
    assert text in capsys.readouterr().out
    assert load_snapshot(tmp_path / "run")["iteration"] == 2
    train(arguments(data, tmp_path / "run", "--resume", "auto"))
    resumed = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_second_signal_stops_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        with pytest.raises(Stopped, match="SIGTERM: stopped at once"):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_those_of_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_while_nothing_can_be_lost_a_signal_stops_at_once():
    with StopRequest() as stop, stop.at_once(), pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stopped.value.code == 128 + signal.SIGUSR1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("everyone", [False, True])
def test_the_command_ends_without_a_traceback(number, everyone, data, tmp_path):
    """`everyone`: as a scheduler and Ctrl-C in a terminal do, the loader's workers get the signal, too."""
    command = [sys.executable, "-m", "rpcnn.train", *arguments(data, tmp_path / "run", "--iterations", "10000")]
    command += ["--data.workers", "2"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    lines = []
    for line in started.stdout:
        lines.append(line)
        if "ETA" in line:
            break
    (os.killpg if everyone else os.kill)(started.pid, number)
    began = time.monotonic()
    out, err = started.communicate(timeout=120)
    assert started.returncode == 128 + number and time.monotonic() - began < 60
    assert f"{number.name}: snapshot of iteration" in out and "Traceback" not in err, err
