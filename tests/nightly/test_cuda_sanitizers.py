"""The emulated CUDA kernels under the sanitizers: no out-of-bounds access, no undefined behavior, no race.

The other test_cuda files run once to record their kernel calls. A process without torch replays them on kernels built
with a sanitizer: AddressSanitizer and UndefinedBehaviorSanitizer for all calls, ThreadSanitizer for one random schedule
(it treats each CUDA thread as a thread).
"""

import os
import pathlib
import subprocess
import sys

import pytest
from helpers import emulator

HERE = pathlib.Path(__file__).parents[1] / "cuda"
FILES = sorted(str(path) for path in HERE.glob("test_cuda_*.py"))
SANITIZERS = {
    "address and undefined": (
        ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"],
        "libasan.so",
        "not ascending and not random_again",
    ),
    "thread": (["-fsanitize=thread"], "libtsan.so", "not ascending and not descending and not float64 and not float16"),
}

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize("name", SANITIZERS)
def test_the_kernels_are_clean(name, tmp_path):
    flags, runtime, which = SANITIZERS[name]
    emulator.build(str(tmp_path / "libsimt.so"), ["-O1", "-g", *flags])
    calls = tmp_path / "calls"
    record = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-k", which, *FILES],
        env={**os.environ, "RPCNN_SIMT_RECORD": str(calls)},
        capture_output=True,
        text=True,
    )
    assert record.returncode == 0, record.stdout
    runtime = subprocess.run(["g++", f"-print-file-name={runtime}"], capture_output=True, text=True, check=True)
    done = subprocess.run(
        [sys.executable, str(HERE / "simt" / "replay.py"), str(tmp_path / "libsimt.so"), str(calls)],
        env={
            **os.environ,
            "LD_PRELOAD": runtime.stdout.strip(),
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "TSAN_OPTIONS": "halt_on_error=1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert int(done.stdout.split()[0]) > 10
