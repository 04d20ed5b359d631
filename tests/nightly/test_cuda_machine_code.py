"""The tests of the CUDA kernels once more, of the machine code that nvcc made for sm_90, executed on the CPU."""

import os
import pathlib
import subprocess
import sys

import pytest
from helpers.machine_code import dump_machine_code

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        os.environ.get("RPCNN_MACHINE_CODE") != "1", reason="takes long; RPCNN_MACHINE_CODE=1 executes the machine code"
    ),
]
FOLDER = pathlib.Path(__file__).parents[1] / "cuda"


def test_machine_code_passes_the_tests_of_the_kernels(tmp_path):
    dump_machine_code(tmp_path / "kernels.sass")
    emulated = sorted(str(path) for path in FOLDER.glob("test_*.py") if "emulator.call" in path.read_text())
    environment = os.environ | {"RPCNN_SIMT_SASS": str(tmp_path / "kernels.sass")}
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", *emulated]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout[-5000:]
