"""The self-check for GPU users, as far as it runs without a GPU."""

import dataclasses
import glob
import pathlib
import re

import pytest
import torch
from helpers.layouts import needs_kernels

from rpcnn import selfcheck
from rpcnn.ops import upsample_sum
from rpcnn.ops._library import OPS

CSRC = pathlib.Path(__file__).parents[2] / "csrc"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert selfcheck.main([]) == 0
    assert "no GPU is visible here, so nothing was checked" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@needs_kernels
def test_the_cpu_kernels_pass(tmp_path):
    folder = tmp_path / "reports"
    assert selfcheck.main(["--device", "cpu", "--no-timing", "--output", str(folder)]) == 0
    (report,) = folder.iterdir()
    text = report.read_text(encoding="utf-8")
    assert "All checks passed." in text
    assert all(f"| {op} | ok | ok |" in text for op in OPS)


@needs_kernels
def test_a_wrong_kernel_is_named_and_the_rest_still_run(tmp_path, monkeypatch):
    make = OPS["upsample_sum"]
    wrong = lambda small: dataclasses.replace(make(small), function=lambda features: 1.01 * upsample_sum(features))
    monkeypatch.setitem(OPS, "upsample_sum", wrong)
    folder = tmp_path / "reports"
    assert selfcheck.main(["--device", "cpu", "--no-timing", "--output", str(folder)]) == 1
    (report,) = folder.iterdir()
    text = report.read_text(encoding="utf-8")
    assert re.search(r"\| upsample_sum \| FAILED: AssertionError: relative error", text)
    assert "| paste_parsing | ok | ok |" in text


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
