"""Batches on their way from a loader's process, also where shared memory and open files are scarce."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from rpcnn.data import packing
from rpcnn.data.packing import PackedBatch, pack, unpack


def batch():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, 5, 7 + n), dtype=torch.uint8, generator=generator) for n in range(3)]
    targets = [
        {"boxes": torch.rand(n, 4, generator=generator), "maps": torch.ones(n, 5, 7, dtype=torch.uint8), "id": f"{n}"}
        for n in range(3)
    ]
    return images, targets


def same(one, two):
    for a, b in zip(one[0], two[0], strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype
    for a, b in zip(one[1], two[1], strict=True):
        assert a.keys() == b.keys() and a["id"] == b["id"]
        assert all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in ("boxes", "maps"))


@pytest.fixture
def in_a_worker(monkeypatch):
    monkeypatch.setattr(packing, "get_worker_info", lambda: object())
    monkeypatch.setattr(packing, "warned", [])


def test_a_packed_batch_is_one_block_of_shared_memory(in_a_worker):
    packed = pack(batch())
    assert isinstance(packed, PackedBatch) and packed.block.is_shared() and packed.reason == ""
    same(unpack(packed), batch())
    assert len({image.untyped_storage().data_ptr() for image in unpack(packed)[0]}) == 1


def test_without_shared_memory_it_goes_through_the_pipe_and_says_so(in_a_worker, monkeypatch, caplog):
    def full(*arguments, **keywords):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    packed = pack(batch())
    assert isinstance(packed.block, np.ndarray)
    same(unpack(packed), batch())
    unpack(packed)
    assert caplog.text.count("batches pass through pipes") == 1 and "--shm-size" in caplog.text


def test_an_empty_batch_passes(in_a_worker):
    assert unpack(pack(([], []))) == ([], [])


def test_in_the_main_process_nothing_is_packed():
    images, targets = batch()
    assert pack((images, targets)) == (images, targets)


PROGRAM = """
import logging, sys, torch
logging.basicConfig()
from rpcnn.data.loader import make_eval_loader
class Set:
    def __len__(self): return 64
    def load(self, i):
        return {"image": torch.full((3, 64, 96), i, dtype=torch.uint8), "boxes": torch.zeros(2, 4), "id": i}
    __getitem__ = load
seen = []
kept = []
for images, targets in make_eval_loader(Set(), batch_size=16, num_workers=4):
    kept.append(images)
    seen += [int(image[0, 0, 0]) for image in images]
assert seen == list(range(64)), seen
print("whole")
"""


@pytest.mark.parametrize(
    "limit",
    ["ulimit -n 128; exec", "exec unshare -m sh -c 'mount -t tmpfs -o size=256k none /dev/shm && exec \"$@\"' sh"],
)
def test_few_files_and_little_shared_memory_do_not_hang(limit, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    if "unshare" in limit:
        can = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev/shm"], capture_output=True)
        if can.returncode:
            pytest.skip("needs the right to mount: unshare -m")
    command = ["bash", "-c", f'{limit} "$@"', "bash", sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "whole\n", done.stderr
    assert ("through pipes" in done.stderr) == ("unshare" in limit)
