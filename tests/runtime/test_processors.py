"""How many processors a command takes: those of its affinity and of its container, not those of the machine."""

import os
import subprocess
import sys

import pytest

from rpcnn.runtime.processors import usable_processors

FILES = {
    "version 2": {"cpu.max": "150000 100000\n"},
    "version 1": {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"},
}


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_a_containers_quota_is_rounded_up(files, many, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_processors(tmp_path) == 2


@pytest.mark.parametrize("text", ["max 100000\n", "-1 100000\n", "0 0\n", "nonsense\n", ""])
def test_without_a_quota_the_affinity_counts(text, many, tmp_path):
    (tmp_path / "cpu.max").write_text(text)
    assert usable_processors(tmp_path) == 64


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_on_one_processor_counts_one():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from rpcnn.runtime.processors import usable_processors; print(usable_processors())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
