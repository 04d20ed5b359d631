"""Compile the CUDA kernel headers for the CPU emulator of tests/cuda/simt and call them through ctypes."""

import atexit
import contextlib
import ctypes
import fcntl
import functools
import glob
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import tempfile

import pytest
import torch

ROOT = str(pathlib.Path(__file__).parents[2])
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]  # their numbers in tests/cuda/simt/exports.h
ORDERS = [("ascending", 0, 0), ("descending", 1, 0), ("random", 2, 1), ("random_again", 2, 2)]


def _cuda_include() -> list[str]:
    """Include path of the CUDA toolkit, whose headers define the half types; without it only float kernels run."""
    if not shutil.which("nvcc"):
        return []
    command = ["nvcc", "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]
    top = re.search(r"^#\$ TOP=(.*)$", subprocess.run(command, capture_output=True, text=True).stderr, re.M)
    return [f"-I{os.path.join(os.path.realpath(top.group(1).strip()), 'include')}"] if top else []


def build(target: str, flags=("-O1",), only="*") -> None:
    """Compile tests/cuda/simt into the shared library `target`; skip the test without g++ for x86-64.

    The flag -DSIMT_SASS makes a library whose launches execute the kernels' machine code (tests/cuda/simt/sass.h).
    """
    if not shutil.which("g++") or os.uname().machine != "x86_64":
        pytest.skip("the CUDA emulator needs g++ on x86-64")
    sources = sorted(glob.glob(os.path.join(ROOT, "tests", "cuda", "simt", f"{only}.cpp")))
    include = [f"-I{os.path.join(ROOT, path)}" for path in ("tests/cuda/simt", "csrc/cuda")] + _cuda_include()
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for source in sources:
            output = os.path.join(folder, os.path.basename(source) + ".o")
            fast = ["-O3", "-march=native", "-ffp-contract=off"] if source.endswith("/sass.cpp") else []
            command = ["g++", "-std=c++20", "-fPIC", "-w", *flags, *fast, *include, "-c", source, "-o", output]
            jobs.append((subprocess.Popen(command), output))
        codes = [job.wait() for job, _ in jobs]
        assert not any(codes), "the CUDA kernel headers do not compile for the emulator"
        subprocess.run(
            ["g++", "-shared", "-Wl,-Bsymbolic-functions", *flags, *(output for _, output in jobs), "-o", target],
            check=True,
        )


FOLDER = "RPCNN_SIMT_FOLDER"
"""Environment variable: the folder where a process and those that it starts share the library."""


def shared_folder() -> str:
    """The folder of FOLDER; without one, a new one, which is removed when this process ends."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="rpcnn-simt-")
        atexit.register(shutil.rmtree, os.environ[FOLDER])
    return os.environ[FOLDER]


@functools.cache
def library() -> ctypes.CDLL:
    """The emulated kernels.

    If RPCNN_SIMT_SASS names a file that `cuobjdump --dump-sass` wrote, launches execute the machine code in it.
    """
    dumped = os.environ.get("RPCNN_SIMT_SASS")
    path = os.path.join(shared_folder(), "libsimt_sass.so" if dumped else "libsimt.so")
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            build(path, ("-O1", "-DSIMT_SASS") if dumped else ("-O1",))
    kernels = ctypes.CDLL(path)
    if dumped:
        kernels.sass_library.restype = ctypes.c_char_p
        if error := kernels.sass_library(dumped.encode()):
            raise RuntimeError(error.decode())
    return kernels


def argument(value):
    """Convert to a C argument: tensor to address, list of tensors to table, dtype to number, int to int64."""
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, torch.dtype):
        return ctypes.c_int64(DTYPES.index(value))
    if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
        return (ctypes.c_void_p * len(value))(*(tensor.data_ptr() for tensor in value))
    if isinstance(value, list):
        return (ctypes.c_int64 * len(value))(*value)
    if isinstance(value, bool):
        return ctypes.c_bool(value)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


def recorded(value):
    """Convert an argument to plain data: a tensor to (its storage as bytes, byte offset of its first element)."""
    if isinstance(value, torch.dtype):
        return DTYPES.index(value)
    if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
        return [recorded(tensor) for tensor in value]
    if isinstance(value, torch.Tensor):
        memory = bytes(value.untyped_storage())
        return memory, value.storage_offset() * value.element_size()
    return value


def call(name: str, *arguments) -> None:
    """Run an exported launcher; raise RuntimeError with the emulator's message if it finds a fault.

    If RPCNN_SIMT_RECORD names a file, the call is appended to it first, for tests/cuda/simt/replay.py.
    """
    if record := os.environ.get("RPCNN_SIMT_RECORD"):
        with open(record, "ab") as file:
            pickle.dump((name, [recorded(argument) for argument in arguments]), file)
    function = getattr(library(), name)
    function.restype = ctypes.c_char_p
    with placed(arguments) if "RPCNN_SIMT_SASS" in os.environ else contextlib.nullcontext(arguments) as given:
        error = function(*(argument(value) for value in given))
    if error:
        raise RuntimeError(f"{name}: {error.decode()}")


@contextlib.contextmanager
def placed(arguments):
    """Move tensors to multiples of 512 bytes, as CUDA has them, and copy them back: counts depend on addresses."""
    moved = {}

    def place(value):
        if isinstance(value, list):
            return [place(item) for item in value]
        if not isinstance(value, torch.Tensor) or value.numel() == 0:
            return value
        own = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage())
        if own.data_ptr() not in moved:
            room = torch.empty(len(own) + 512, dtype=torch.uint8)
            moved[own.data_ptr()] = own, room[-room.data_ptr() % 512 :][: len(own)].copy_(own)
        there = moved[own.data_ptr()][1]
        offset = there.storage_offset() // value.element_size() + value.storage_offset()
        empty = torch.empty(0, dtype=value.dtype)
        return empty.set_(there.untyped_storage(), offset, value.shape, value.stride())

    yield [place(value) for value in arguments]
    for own, there in moved.values():
        own.copy_(there)


def counts(kernels=None) -> list[dict]:
    """What the kernels launched since the last call did, with RPCNN_SIMT_SASS: `Counts` of tests/cuda/simt/sass.h."""
    kernels = kernels or library()
    kernels.sass_counts.restype = ctypes.c_char_p
    header, *lines = kernels.sass_counts().decode().splitlines()
    rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    return [{key: value if key == "kernel" else int(value) for key, value in row.items()} for row in rows]


def accumulation(dtype: torch.dtype) -> torch.dtype:
    """Dtype in which the kernels accumulate."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def adjoint_scratch(images: int, channels: int, sizes, dtype: torch.dtype) -> torch.Tensor:
    """Scratch of exactly the size that the pyramid's two adjoint launches need (csrc/cuda/pyramid_adjoint_kernel.cuh).

    sizes: (height, width) of the levels, the finest first.
    """
    numbers = sum(images * channels * sizes[0][0] * w for h, w in sizes if h != sizes[0][0])
    return torch.full((numbers,), torch.nan, dtype=accumulation(dtype))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """Tolerances for sums of a few dozen terms near 1 that are rounded to the dtype once."""
    relative = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    return {"rtol": relative, "atol": relative}


def schedule(order: tuple[str, int, int]) -> None:
    """Set the order in which the emulator runs blocks and threads."""
    call("simt_order", order[1], order[2])
