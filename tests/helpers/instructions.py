"""Count the instructions that a call executes in a compiled module, on x86-64 Linux (instructions.c)."""

import ctypes
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

SOURCE = pathlib.Path(__file__).with_suffix(".c")


class InstructionCounter:
    """Counts what the calling thread executes in one module; other threads must keep out of it meanwhile.

    Args:
        module: path of a shared library that this process has loaded.
        folder: where the counter's own library is put.

    Skips the test where instructions cannot be counted.
    """

    def __init__(self, module: str, folder: pathlib.Path):
        if os.uname().sysname != "Linux" or os.uname().machine != "x86_64" or not shutil.which("gcc"):
            pytest.skip("counting instructions needs Linux on x86-64 and gcc")
        library = folder / "instructions.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.begin.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
        self._library.end.restype = ctypes.c_uint64
        maps = pathlib.Path("/proc/self/maps").read_text()
        (code,) = re.findall(rf"^(\w+)-(\w+) r-xp .* {re.escape(module)}$", maps, re.MULTILINE)
        self._first, self._last = (int(address, 16) for address in code)
        self._module = pathlib.Path(module)

    def count(self, call: Callable[[], object]) -> int:
        """Count the module's instructions that `call` executes."""
        self._library.begin(self._first, self._last - self._first)
        try:
            call()
        finally:
            counted = self._library.end()
        return counted

    def build(self) -> str:
        """Name what counts depend on, such as "GCC 12 x86-64-v4": the module's compiler and the processor's level.

        The level decides which clone of a kernel runs (RPCNN_CLONES in csrc/cpu/common.h).
        """
        found = re.findall(rb"(GCC): \([^)]*\) (\d+)|(clang) version (\d+)", self._module.read_bytes())
        compilers = sorted({b" ".join(filter(None, words)).decode() for words in found})
        return f"{' + '.join(compilers)} x86-64-v{self._library.level()}"
