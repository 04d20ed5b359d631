"""Evaluation with two processes equals one process, and failures end both."""

import contextlib
import io
import json
import pathlib

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers.commands import TINY

from rpcnn.data.painted import dataset as painted
from rpcnn.demo import main as demo
from rpcnn.evaluate import main as evaluate
from rpcnn.runtime import distributed
from rpcnn.train import main as train

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")

# Batch norm, because its running means differ between processes in training; score limit 0, to keep all detections.
RUN = [*TINY, "--model.backbone-norm", "bn", "--inference.min-box-score", "0", "--inference.min-parsing-score", "0"]
ONE = ["--data.options", "train=8", "val=1", "short_side=[96, 128]"]
OPTIONS = ["--data.workers", "0", "--run.pictures", "2", "--run.save-predictions", "coco"]


def refuse(*arguments, **options):
    raise OSError("no space left")


def work(rank: int, folder: str) -> None:
    """Run all commands in one of the two processes; each command has its own process group."""
    torch.set_num_threads(1)
    reports = {}

    def run(name, command, arguments):
        store = f"file://{folder}/{name}.store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
        output, reports[name] = io.StringIO(), {}
        try:
            with contextlib.redirect_stdout(output):
                reports[name]["result"] = command(arguments)
        except SystemExit as end:
            reports[name]["end"] = str(end)
        reports[name]["output"] = output.getvalue()
        assert not dist.is_initialized()

    data = ["--data-root", f"{folder}/data"]
    weights = f"{folder}/run"
    run("trained", train, ["painted", *RUN, *OPTIONS, *data, "--iterations", "1", "--output", weights])
    reports["trained"] = None  # a path
    run("three", evaluate, [weights, *OPTIONS, "--output", f"{folder}/two"])
    run(
        "one",
        evaluate,
        [
            weights,
            *OPTIONS,
            "--data.options",
            "train=8",
            "val=1",
            "short_side=[96, 128]",
            "--output",
            f"{folder}/small",
        ],
    )
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr("rpcnn.inference.pipeline.Pipeline.__call__", refuse)
        run("failing", evaluate, [weights, "--output", f"{folder}/failing"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painted, "write_cihp", refuse)  # only the main process paints
        run("unpainted", evaluate, [weights, "--output", f"{folder}/failing"])
        run("untrained", train, ["painted", *RUN, *data, "--output", f"{folder}/failing"])
    run("again", train, ["painted", *RUN, *data, "--output", weights])
    run("uneven", train, ["painted", *RUN, *data, "--output", f"{folder}/uneven", "--batch-size", "3"])
    pathlib.Path(folder, f"{rank}.json").write_text(json.dumps(reports))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(work, args=(str(folder),), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def reports(folder):
    """Per process, a dict from command name to its result or exit message, and its output."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(folder):
    """Output folder of the same evaluation with one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    evaluate([str(folder / "run"), *OPTIONS, "--output", str(folder / "alone")])
    torch.set_num_threads(threads)
    return folder / "alone"


def written(folder):
    results = json.loads((folder / "results.json").read_text())
    predictions = json.loads((folder / "predictions" / "predictions.json").read_text())
    return results, predictions, sorted(path.name for path in (folder / "pictures").iterdir())


@pytest.mark.parametrize("name", ["run", "two"])
def test_two_processes_evaluate_what_one_does(name, folder, alone):
    results, predictions, pictures = written(folder / name)
    want, want_predictions, want_pictures = written(alone)
    assert want["images"] == 3 and want["people"] > 0 and want["miou"] > 0
    assert len(want_predictions["annotations"]) > 3 and len(want_pictures) == 2
    assert results.pop("iou") == pytest.approx(want.pop("iou"))
    assert results == pytest.approx(want)
    assert predictions == want_predictions
    assert pictures == want_pictures


def test_a_set_smaller_than_the_processes(folder, reports):
    results, predictions, pictures = written(folder / "small")
    assert results["images"] == len(predictions["images"]) == len(pictures) == 1
    assert [t["one"]["result"] for t in reports] == [results] * 2


def test_the_main_process_alone_prints(reports):
    for name in ("three", "one"):
        assert "AP^p_50" in reports[0][name]["output"] and reports[1][name]["output"] == ""


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("failing", ["rpcnn: process 1: OSError: no space left", "rpcnn: no space left"]),
        ("unpainted", ["rpcnn: no space left", "rpcnn: process 0: OSError: no space left"]),
        ("untrained", ["rpcnn: no space left", "rpcnn: process 0: OSError: no space left"]),
        ("again", ["rpcnn: run.output: ", "rpcnn: process 0: ValueError: run.output: "]),
        (
            "uneven",
            ["rpcnn: train.batch_size: must be a multiple of the processes times train.accumulate, 2, got 3"] * 2,
        ),
    ],
)
def test_processes_fail_together(name, messages, reports):
    for one, message in zip(reports, messages, strict=True):
        assert one[name]["end"].startswith(message)


def test_one_process_raises_its_own_error():
    with pytest.raises(KeyError, match="here"), distributed.failing_together():
        raise KeyError("here")
    assert distributed.on_main(lambda: 3) == 3


def test_unsharded_commands_run_in_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match=r"rpcnn: rpcnn demo must run in one process, got 2"):
        demo(["here"])
    with pytest.raises(SystemExit, match=r"rpcnn: rpcnn evaluate --predictions must run in one process, got 2"):
        evaluate(["--predictions", "here", "--data", "there"])
