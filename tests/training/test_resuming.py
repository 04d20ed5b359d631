"""What a continued run may change, and what is never lost."""

import fcntl
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys

import pytest
import torch
from helpers.commands import TINY
from safetensors.torch import save_file

from rpcnn.config import load_config
from rpcnn.runtime import checkpoint
from rpcnn.runtime.checkpoint import CannotSave, load_snapshot, load_weights, new_run_folder, snapshots
from rpcnn.runtime.lock import FolderLock
from rpcnn.runtime.logbook import Logbook
from rpcnn.train import main as train
from rpcnn.training.same_run import changes, check_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(tmp_path_factory.mktemp("painted"))


def run(data, folder, *extra):
    options = [*TINY, "--run.log-every", "1", "--run.no-evaluate", "--data-root", data, "--output", str(folder)]
    return train(["painted", *options, "--iterations", "4", *extra])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def halved(finished, tmp_path):
    """A copy of the run that stopped after its snapshot of iteration 2, while it wrote the next."""
    folder = shutil.copytree(finished, tmp_path / "halved")
    (folder / "state-4.pt").rename(folder / ".state-4.pt.partial")
    (folder / "model.safetensors").unlink()
    return folder


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_no_record_stands_twice_and_partial_files_go(data, finished, halved):
    run(data, halved, "--resume", "auto")
    assert [record["iteration"] for record in records(halved)] == [1, 2, 3, 4]
    assert [r["loss"] for r in records(halved)] == [r["loss"] for r in records(finished)]
    assert not list(halved.glob(".*partial*"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--batch-size", "4"], r"train\.batch_size 2 to 4"),
        (["--seed", "1"], r"run\.seed 0 to 1"),
        (["--train.optimizer", "sgd"], r"train\.optimizer adamw to sgd"),
        (["--model.fpn-channels", "32"], r"model\.fpn_channels 16 to 32"),
        (["--data.options", "train=9", "val=3", "short_side=[96, 128]"], r"data\.options\.train 8 to 9"),
    ],
)
def test_what_a_run_keeps_cannot_be_changed(option, message, data, halved):
    before = (halved / "config.toml").read_text()
    with pytest.raises(SystemExit, match=r"run\.resume: a run cannot change " + message):
        run(data, halved, "--resume", "auto", *option)
    assert (halved / "config.toml").read_text() == before


def test_other_changes_are_named(data, halved, capsys):
    run(data, halved, "--resume", "auto", "--train.learning-rate", "0.001", "--loss.lambda-parsing", "1")
    said = capsys.readouterr().out
    assert "changed  train.learning_rate: 0.016, now 0.001" in said
    assert "changed  loss.lambda_parsing: 2.0, now 1.0" in said


def test_an_unchanged_configuration_has_no_changes():
    assert changes(load_config("painted"), load_config("painted")) == []


def test_other_training_images_are_refused():
    check_data(None, {"images": 3, "sizes": 1})
    with pytest.raises(ValueError, match="the run had 4 images, now 3"):
        check_data({"images": 4, "sizes": 1}, {"images": 3, "sizes": 1})
    with pytest.raises(ValueError, match="the run had images of other sizes or in another order"):
        check_data({"images": 3, "sizes": 2}, {"images": 3, "sizes": 1})


def test_every_flipped_byte_of_a_snapshot_is_noticed_or_harmless(finished, tmp_path, capsys):
    path = shutil.copy(snapshots(finished)[-1], tmp_path / "state-4.pt")
    whole = path.read_bytes()
    good = torch.load(path, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for position in torch.randint(len(whole), (40,), generator=generator).tolist():
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        try:
            state = load_snapshot(tmp_path)
        except ValueError:
            continue
        assert all(torch.equal(state["model"][key], value) for key, value in good["model"].items())


def test_a_torn_snapshot_is_noticed(finished, tmp_path):
    path = shutil.copy(snapshots(finished)[-1], tmp_path / "state-4.pt")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="no sound snapshot"):
        load_snapshot(tmp_path)


def test_a_snapshot_that_is_not_finite_is_never_resumed(finished, tmp_path, capsys):
    state = torch.load(snapshots(finished)[-1], weights_only=True)
    next(iter(state["model"].values())).fill_(torch.nan)
    torch.save(state, tmp_path / "state-4.pt")
    with pytest.raises(ValueError, match="no sound snapshot"):
        load_snapshot(tmp_path)
    assert "is not finite" in capsys.readouterr().out


def test_a_flipped_byte_of_weights_is_noticed(finished, tmp_path):
    path = shutil.copy(finished / "model.safetensors", tmp_path / "model.safetensors")
    with open(path, "r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ValueError, match="is damaged: its tensors differ from what was written"):
        load_weights(path)


def test_two_runs_never_share_a_folder(tmp_path):
    code = "import pathlib, sys, time; from rpcnn.runtime.lock import FolderLock; "
    code += "lock = FolderLock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"process {other.pid} of .* is training in .*; wait for its end"):
            FolderLock(tmp_path, patience=0)
    finally:
        other.kill()
        other.wait()
    FolderLock(tmp_path, patience=5).release()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    FolderLock(tmp_path).release()
    assert "the file system has no locks" in caplog.text


def test_a_run_that_was_killed_before_its_first_snapshot_is_not_overwritten(tmp_path):
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(ValueError, match="already holds a run"):
        new_run_folder(str(tmp_path), "painted", "never")


def test_a_restart_of_torchrun_continues_its_own_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = pathlib.Path("runs/painted")
    folder.mkdir(parents=True)
    (folder / "state-3.pt").write_bytes(b"")
    (folder / checkpoint.MARK).write_text(json.dumps(checkpoint.this_launch()))
    assert new_run_folder("", "painted", "never") == (pathlib.Path("runs/painted-2"), False)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert new_run_folder("", "painted", "never") == (folder, True)
    (folder / checkpoint.MARK).write_text('{"torchrun": "another"}')
    assert new_run_folder("", "painted", "never") == (pathlib.Path("runs/painted-2"), False)


def test_too_little_space_is_noticed_before_the_first_step(data, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(SystemExit, match=r"snapshots and weights need \d+ MB, .* has 1 MB free"):
        run(data, tmp_path / "run")


def test_a_disk_that_fills_up_costs_no_snapshot(data, tmp_path, monkeypatch):
    honest, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 3:
            pathlib.Path(path).write_bytes(b"half")
            raise RuntimeError(
                "[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data"
            )
        honest(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SystemExit, match=r"state-4\.pt cannot be written: .*MB are free.*--resume auto"):
        run(data, tmp_path / "run")
    monkeypatch.undo()
    assert load_snapshot(tmp_path / "run")["iteration"] == 2 and not list((tmp_path / "run").glob(".*partial*"))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(CannotSave, match="none/x cannot be written: No such file or directory"):
        checkpoint.replace_file(tmp_path / "none" / "x", lambda partial: partial.write_text("x"))


def test_weights_are_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        checkpoint.replace_file(tmp_path / "x", lambda partial: save_file({"w": torch.zeros(1)}, partial))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_old_snapshots_and_weights_without_checksums_load(finished, tmp_path):
    state = torch.load(snapshots(finished)[-1], weights_only=True)
    for key in ("ema", "returns", "data"):
        del state[key]
    torch.save(state, tmp_path / "state-4.pt")
    assert load_snapshot(tmp_path)["iteration"] == 4


def test_a_log_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    log = Logbook(tmp_path)
    log.path = tmp_path / "none" / "metrics.jsonl"
    log.write({"iteration": 1})
    log.write({"iteration": 2})
    assert caplog.text.count("No such file or directory; training goes on without this record") == 1
