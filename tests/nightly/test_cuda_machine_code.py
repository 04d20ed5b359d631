"""The tests of the CUDA kernels once more, of the machine code that nvcc made for sm_90, executed on the CPU."""

import os
import pathlib
import subprocess
import sys

import pytest
from helpers.machine_code import dump_machine_code

pytestmark = pytest.mark.nightly
FOLDER = pathlib.Path(__file__).parents[1] / "cuda"


@pytest.fixture(scope="module")
def dumped(tmp_path_factory):
    path = tmp_path_factory.mktemp("machine_code") / "kernels.sass"
    dump_machine_code(path)
    return path


def emulated() -> list[pathlib.Path]:
    """The tests that call kernels through the emulator."""
    return sorted(path for path in FOLDER.glob("test_*.py") if "emulator.call" in path.read_text())


@pytest.mark.parametrize("path", emulated(), ids=lambda path: path.stem)
def test_machine_code_passes_the_tests_of_the_kernels(path, dumped):
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(path)]
    run = subprocess.run(command, env=os.environ | {"RPCNN_SIMT_SASS": str(dumped)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout
