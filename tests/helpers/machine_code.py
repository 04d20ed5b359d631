"""What cuobjdump reads of the compiled CUDA kernels, without a GPU.

cuobjdump comes with the CUDA toolkit and inside the triton wheel, which torch's CUDA builds install.
"""

import importlib.util
import pathlib
import re
import shutil
import subprocess

import pytest

from rpcnn.ops._library import CUDA_MISSING

ARCHITECTURE = "sm_90"


def cuobjdump(*arguments: str, output=subprocess.PIPE) -> str | None:
    """What cuobjdump prints of the compiled kernels, or None if it goes to the file `output`; skip if it is missing."""
    if CUDA_MISSING:
        pytest.skip(f"rpcnn._C_cuda: {CUDA_MISSING}")
    tool, library = shutil.which("cuobjdump"), importlib.util.find_spec("rpcnn._C_cuda").origin
    if triton := importlib.util.find_spec("triton"):
        inside = pathlib.Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump"
        tool = tool or (str(inside) if inside.exists() else None)
    if tool is None:
        pytest.skip("needs cuobjdump (CUDA toolkit or triton)")
    return subprocess.run([tool, *arguments, library], stdout=output, text=True, check=True).stdout


def nvcc_version() -> str:
    """Version of the nvcc that compiled the kernels, such as 13.0.88; older versions do not record it."""
    dumped = cuobjdump("--dump-elf", "--gpu-architecture", ARCHITECTURE)
    found = re.search(r"Cuda compilation tools, release \S+ V([\d.]+)", dumped)
    return found.group(1) if found else "of unknown version"


def dump_machine_code(path) -> None:
    """Write the kernels' machine code for sm_90 to a file; skip if they were not compiled for it."""
    with open(path, "w") as file:
        cuobjdump("--dump-sass", "--gpu-architecture", ARCHITECTURE, output=file)
    with open(path) as file:
        if not any("Function :" in line for line in file):
            pytest.skip(f"rpcnn._C_cuda was not compiled for {ARCHITECTURE}")
