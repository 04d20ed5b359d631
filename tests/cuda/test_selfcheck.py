"""The self-check for GPU users, as far as it runs without a GPU."""

import dataclasses
import glob
import pathlib
import re
from types import SimpleNamespace

import pytest
import torch
from helpers.layouts import needs_kernels
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rpcnn.ops import upsample_sum
from rpcnn.ops._library import OPS
from rpcnn.selfcheck.__main__ import main
from rpcnn.selfcheck.checks import check_second_device
from rpcnn.selfcheck.report import load_json

CSRC = pathlib.Path(__file__).parents[2] / "csrc"


@pytest.fixture
def report(tmp_path):
    """Run the command on the CPU; returns its status, the Markdown and the report read from its JSON."""

    def run(*arguments):
        status = main(["--device", "cpu", "--output", str(tmp_path / "reports"), *arguments])
        (text,), (data,) = ((tmp_path / "reports").glob(f"*.{suffix}") for suffix in ("md", "json"))
        return status, text.read_text(encoding="utf-8"), load_json(data)

    return run


@pytest.fixture
def short(monkeypatch):
    """Time small inputs, a few times."""
    for op, make in list(OPS.items()):
        monkeypatch.setitem(OPS, op, lambda small, make=make: make(True))
    monkeypatch.setattr("rpcnn.selfcheck.measure.BUDGET", 0)
    monkeypatch.setattr("rpcnn.selfcheck.measure.SAMPLE", 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert "no GPU is visible here, so nothing was checked" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@needs_kernels
def test_the_cpu_kernels_pass(report):
    status, text, _ = report("--no-timing")
    assert status == 0 and "All checks passed." in text
    assert all(f"| {op} | ok | ok |" in text for op in OPS)


@needs_kernels
def test_a_wrong_kernel_is_named_and_the_rest_still_run(report, monkeypatch):
    make = OPS["upsample_sum"]
    wrong = lambda small: dataclasses.replace(make(small), function=lambda features: 1.01 * upsample_sum(features))
    monkeypatch.setitem(OPS, "upsample_sum", wrong)
    status, text, _ = report("--no-timing")
    assert status == 1
    assert re.search(r"\| upsample_sum \| FAILED: AssertionError: relative error", text)
    assert "| paste_parsing | ok | ok |" in text


@needs_kernels
def test_each_row_has_the_command_that_repeats_it(report, short):
    status, text, found = report("--no-checks", "--only", "downsample_add")
    assert status == 0 and found.checks == {} and found.copying > 0
    assert [row.direction for row in found.rows] == ["forward", "forward + backward"]
    for row in found.rows:
        assert row.command.endswith(f"--device cpu --no-checks --only '{' '.join(row.key)}'")
        assert f"| {row.commit or '–'} | `{row.command}` |" in text and row.timed_by == "host"


@needs_kernels
def test_what_cannot_be_timed_is_named_and_the_rest_is_timed(report, short, monkeypatch):
    def broken(**arguments):
        raise RuntimeError("out of memory")

    make = OPS["roi_align"]
    monkeypatch.setitem(OPS, "roi_align", lambda small: dataclasses.replace(make(small), function=broken))
    status, text, found = report("--no-checks", "--only", "align forward float32")
    assert status == 1 and {row.op for row in found.rows} == {"multilevel_roi_align"}
    assert "Not timed: roi_align forward float32: RuntimeError: out of memory" in text


class NoCPUTensors(TorchDispatchMode):
    """Raise RuntimeError at an op that reads a CPU tensor: a CUDA graph cannot capture that."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if any(t.device.type == "cpu" for t in tensors):
            raise RuntimeError(f"{function} reads a CPU tensor")
        return function(*args, **(kwargs or {}))


@needs_kernels
@pytest.mark.parametrize("op", [op for op, make in OPS.items() if make(True).fixed_size])
def test_calls_in_a_graph_read_nothing_from_the_cpu(op):
    example = OPS[op](small=True)
    arguments = example.on("meta", layout=torch.channels_last)
    with NoCPUTensors():
        assert all(t.device.type == "meta" for t in tree_leaves(example.function(**arguments)))


@pytest.mark.parametrize("other", ["H100", "T4"])
def test_only_devices_of_one_model_must_agree_to_the_bit(other, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: ["H100", other][torch.device(device).index])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    results = {"cuda:0": torch.ones(3), "cuda:1": torch.ones(3) + 1e-6}
    example = SimpleNamespace(run=lambda function, device: [results[str(device)]], function=None, exact=False)
    check = lambda: check_second_device(example, torch.device("cuda:0"))
    if other == "H100":
        with pytest.raises(AssertionError, match="cuda:1: results differ"):
            check()
    else:
        check()
        results["cuda:1"] = torch.ones(3) + 1e-2
        with pytest.raises(AssertionError, match="relative error"):
            check()


def test_every_op_has_a_kernel_for_both():
    implemented = {
        folder: {
            name
            for source in glob.glob(str(CSRC / folder / f"*.{suffix}"))
            for name in re.findall(r'm\.impl\("(\w+)"', pathlib.Path(source).read_text(encoding="utf-8"))
        }
        for folder, suffix in (("cpu", "cpp"), ("cuda", "cu"))
    }
    assert implemented["cpu"] == implemented["cuda"]
