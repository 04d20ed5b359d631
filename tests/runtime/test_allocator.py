"""Commands keep freed memory, unless the user has chosen the allocator's settings."""

import ctypes
import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from rpcnn.runtime.allocator import retain_memory
if sys.argv[1] == "retained":
    assert retain_memory()
for number in range(40):
    if number == 20:  # glibc places the first ones behind each other
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
needs_glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="the C library is not glibc",
)


def run(code: str, *arguments: str, **variables: str) -> str:
    """The output of Python code in a new process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | variables
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@needs_glibc
def test_retained_memory_is_not_cleared_again():
    retained, fresh = (int(run(FAULTS, how)) for how in ("retained", "fresh"))
    assert retained < fresh / 4


@needs_glibc
def test_the_users_own_settings_stay():
    code = "from rpcnn.runtime.allocator import retain_memory; print(retain_memory())"
    assert run(code) == "True"
    assert run(code, MALLOC_MMAP_THRESHOLD_="1000000") == "False"
