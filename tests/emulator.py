"""Compiles the CUDA kernel headers for the CPU emulator of tests/simt and calls them through ctypes."""

import ctypes
import functools
import glob
import os
import re
import shutil
import subprocess
import tempfile

import pytest
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ORDERS = [("ascending", 0, 0), ("descending", 1, 0), ("random", 2, 1), ("random again", 2, 2)]


def _cuda_include() -> list[str]:
    """A toolkit's headers give the half types; without one the emulator runs the float kernels only."""
    if not shutil.which("nvcc"):
        return []
    command = ["nvcc", "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]
    top = re.search(r"^#\$ TOP=(.*)$", subprocess.run(command, capture_output=True, text=True).stderr, re.M)
    return [f"-I{os.path.join(os.path.realpath(top.group(1).strip()), 'include')}"] if top else []


@functools.cache
def library() -> ctypes.CDLL:
    """The emulated kernels; skips the test where there is no g++ for x86-64."""
    if not shutil.which("g++") or os.uname().machine != "x86_64":
        pytest.skip("the CUDA emulator needs g++ on x86-64")
    folder = tempfile.mkdtemp(prefix="rpcnn-simt-")
    sources = sorted(glob.glob(os.path.join(ROOT, "tests", "simt", "*.cpp")))
    include = [f"-I{os.path.join(ROOT, path)}" for path in ("tests/simt", "csrc/cuda")] + _cuda_include()
    flags = ["-std=c++20", "-O1", "-fPIC", "-w"]
    jobs = []
    for source in sources:
        output = os.path.join(folder, os.path.basename(source) + ".o")
        jobs.append((subprocess.Popen(["g++", *flags, *include, "-c", source, "-o", output]), output))
    assert all(job.wait() == 0 for job, _ in jobs), "the CUDA kernel headers do not compile for the emulator"
    target = os.path.join(folder, "libsimt.so")
    subprocess.run(["g++", "-shared", *(output for _, output in jobs), "-o", target], check=True)
    loaded = ctypes.CDLL(target)
    shutil.rmtree(folder)
    return loaded


def argument(value):
    """A Python value as a C argument: tensors by address, lists of tensors as tables of addresses, ints in 64 bits."""
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
        return (ctypes.c_void_p * len(value))(*(tensor.data_ptr() for tensor in value))
    if isinstance(value, list):
        return (ctypes.c_int64 * len(value))(*value)
    if isinstance(value, bool):
        return ctypes.c_bool(value)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


def call(name: str, *arguments) -> None:
    """Runs an exported launcher; raises RuntimeError with the emulator's text where it found a fault."""
    function = getattr(library(), name)
    function.restype = ctypes.c_char_p
    error = function(*(argument(value) for value in arguments))
    if error:
        raise RuntimeError(f"{name}: {error.decode()}")


def schedule(order: tuple[str, int, int]) -> None:
    """Sets the order in which the emulator runs blocks and threads."""
    call("simt_order", order[1], order[2])
