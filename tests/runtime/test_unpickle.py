"""Reading state dicts from pickles: equal to torch.load where it can read them, and no pickled code ever runs."""

import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from rpcnn.runtime.unpickle import read_checkpoint, read_state_dict

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])


class RunsACommand:
    """Would create a file if unpickled by pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def foreign(monkeypatch):
    """A class that pickles as utils.collections.AttrDict and no longer exists when the file is read."""
    module = types.ModuleType("utils.collections")
    exec("class AttrDict(dict): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "utils", types.ModuleType("utils"))
    monkeypatch.setitem(sys.modules, "utils.collections", module)
    module.AttrDict.__module__ = "utils.collections"
    return module.AttrDict


def save(content, path, zipped: bool):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def tensors() -> dict[str, torch.Tensor]:
    base = torch.randn(6, 5)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    return {
        "whole": base,
        "transposed": base.T,
        "part": base[2:4, 1:],
        "scalar": torch.tensor(3),
        "none": torch.empty(0, 4),
        **{str(kind): torch.arange(7).to(kind) for kind in kinds},
    }


@FORMATS
def test_tensors_are_those_of_torch_load(zipped, tmp_path):
    state = OrderedDict(tensors())
    state._metadata = OrderedDict(version=1)  # as Module.state_dict() has it
    path = save(state, tmp_path / "w.pth", zipped)
    got, expected = read_state_dict(path), torch.load(path, weights_only=True)
    assert list(got) == list(expected)
    for key, value in expected.items():
        assert got[key].dtype == value.dtype and torch.equal(got[key], value), key


@FORMATS
def test_parameters_are_read_as_tensors(zipped, tmp_path):
    layer = torch.nn.Linear(3, 2)
    got = read_state_dict(save(dict(layer.named_parameters()), tmp_path / "w.pth", zipped))
    assert torch.equal(got["weight"], layer.weight)


def test_storages_of_a_gpu_are_read_on_the_cpu(tmp_path):
    path = save({"w": torch.arange(4.0)}, tmp_path / "w.pth", zipped=False)
    content = path.read_bytes()
    assert b"ctorch\nFloatStorage\n" in content
    path.write_bytes(content.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n"))
    assert torch.equal(read_state_dict(path)["w"], torch.arange(4.0))


@FORMATS
@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_loading_takes_the_network_and_names_other_entries(zipped, wrapper, foreign, tmp_path):
    solver = foreign(rate=0.02, steps=[1, 2], inner=foreign(name="sgd"))
    solver.immutable = True
    optimizer = {"state": {0: {"momentum_buffer": torch.randn(9)}}}
    content = {"optimizer": optimizer, wrapper: {"module.w": torch.ones(2)}, "scheduler": {"solver": solver}}
    path = save(content, tmp_path / "w.pth", zipped)
    del sys.modules["utils.collections"], sys.modules["utils"]
    with pytest.raises(pickle.UnpicklingError, match="AttrDict"):
        torch.load(path, weights_only=True)
    state, others = read_checkpoint(path)
    assert list(state) == ["w"] and torch.equal(state["w"], torch.ones(2))
    assert others == ["optimizer", "scheduler"]
    assert "utils.collections" not in sys.modules


def test_a_prefix_that_some_names_lack_stays(tmp_path):
    path = save({"module.a": torch.ones(1), "a": torch.zeros(1)}, tmp_path / "w.pth", zipped=True)
    assert set(read_state_dict(path)) == {"module.a", "a"}


@FORMATS
def test_nothing_that_a_file_names_is_run(zipped, tmp_path):
    marker = tmp_path / "marker"
    trap = RunsACommand(marker)
    path = save({"model": {"w": torch.ones(2)}, "scheduler": [trap, {trap: 1}]}, tmp_path / "w.pth", zipped)
    assert list(read_state_dict(path)) == ["w"]
    path = save({"w": trap}, tmp_path / "v.pth", zipped)
    with pytest.raises(ValueError, match="got an unknown object as 'w'"):
        read_state_dict(path)
    assert not marker.exists()
    os.system(trap.__reduce__()[1][0])
    assert marker.exists()  # it is a trap


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch MARKER'\ntR.",
        b'cbuiltins\neval\n(S\'open("MARKER", "w")\'\ntR.',
        b"(S'touch MARKER'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch MARKER'\no.",
        b"ccollections\nOrderedDict.__init__.__globals__\n(S'MARKER'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n(S'MARKER'\ntR.",
        b"ctorch\nload\n(S'MARKER'\ntR.",
        # Try to replace the function that rebuilds a later tensor.
        b"ctorch._utils\n_rebuild_tensor_v2\n(N}S'__code__'\ncos\nsystem\nstb.",
    ],
)
def test_handwritten_programs_run_nothing_either(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    for content in (program, magic + program):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights: .*w\.pth cannot be read"):
            read_state_dict(path)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]
    save({"w": torch.ones(1)}, path, zipped=False)
    assert torch.equal(read_state_dict(path)["w"], torch.ones(1))  # the reader itself is unchanged


HEAD = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
# ((…), (…)) forty times: its hash takes 2^40 steps, and so does its text.
NESTED = b")" + b"2\x86" * 40
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
HOSTILE = {
    "a memo of 2^27": b"N" + b"r" + (2**27).to_bytes(4, "little") + b".",
    "a memo of 2^31": b"N" + b"r" + (2**31 - 1).to_bytes(4, "little") + b".",
    "a byte array of 2^34": b"\x96" + (2**34).to_bytes(8, "little") + b".",
    "bytes of 2^34": b"\x8e" + (2**34).to_bytes(8, "little") + b".",
    "text of 2^34": b"\x8d" + (2**34).to_bytes(8, "little") + b".",
    "a frame of 2^34": b"\x80\x04\x95" + (2**34).to_bytes(8, "little") + b"N.",
    "a nested key": b"}" + NESTED + b"Ns.",
    "nested keys": b"}(" + NESTED + b"N" + NESTED + b"Nu.",
    "a nested key of a dict": b"(" + NESTED + b"N" + b"d.",
    "a nested item of a set": b"\x8f(" + NESTED + b"\x90.",
    "a nested item of a frozenset": b"(" + NESTED + b"\x91.",
    "a nested key of an ordered dict": b"ccollections\nOrderedDict\n](" + NESTED + b"N\x86e\x85R.",
    "a nested storage": b"(" + NESTED + b"NNNNtQ.",
    "a nested key of a storage": STORAGE + NESTED + b"X\x01\x00\x00\x000K\x01NtQ.",
    "nothing": b"}.",
    "a storage of 2^31": (
        b"}X\x01\x00\x00\x00w" + b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE
        + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\xff\xff\xff\x7fNtQK\x00K\x01\x85K\x01\x85\x89}tRs."
        + b"]X\x01\x00\x00\x000a." + (2**31 - 1).to_bytes(8, "little")
    ),
    "a million lists": b"]" * 5_000_000 + b".",
}  # fmt: skip


READ_ALL = """
import resource, signal, sys, time
from rpcnn.runtime.unpickle import read_state_dict
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for path in sys.argv[1:]:
    before, start = peak(), time.monotonic()
    signal.alarm(60)
    try:
        words = str(len(read_state_dict(path)))
    except ValueError as error:
        words = str(error)
    print(path, time.monotonic() - start, peak() - before, words, sep="\\t", flush=True)
"""


def test_a_few_bytes_take_neither_gigabytes_nor_years(tmp_path):
    for name, program in HOSTILE.items():
        (tmp_path / f"{name}.pth").write_bytes(HEAD + program)
    paths = [str(tmp_path / f"{name}.pth") for name in HOSTILE]
    done = subprocess.run([sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [path for path, *_ in lines] == paths, done.stderr[-2000:]
    for path, seconds, megabytes, words in lines:
        assert words.startswith(f"weights: {path} cannot be read: ") and len(words) < 600
        assert float(seconds) < 30 and float(megabytes) < 700, path


def test_a_compressed_archive_is_refused(tmp_path):
    plain = save({"w": torch.zeros(1000)}, tmp_path / "w.pth", zipped=True)
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as other:
        for record in archive.infolist():
            other.writestr(record.filename, archive.read(record))
    with pytest.raises(ValueError, match="a compressed zip archive"):
        read_state_dict(tmp_path / "c.pth")


def test_dtypes_that_no_network_has_are_refused(tmp_path):
    for dtype in (torch.complex64, torch.float8_e4m3fn):
        save_file({"w": torch.zeros(3).to(dtype)}, tmp_path / "w.safetensors")
        with pytest.raises(ValueError, match=f"w must hold floats, integers or bools, got {dtype}"):
            read_state_dict(tmp_path / "w.safetensors")


@FORMATS
@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {}, "state_dict": {}}])
def test_a_file_without_tensors_is_refused(content, zipped, tmp_path):
    with pytest.raises(ValueError, match="it holds no tensors"):
        read_state_dict(save(content, tmp_path / "w.pth", zipped))


def test_keys_of_every_kind_are_read_past(tmp_path):
    other = {(1, (2, 3)): 1, frozenset([(1, 2)]): {(4,)}, 5: OrderedDict([((1, 2), 3)]), None: 1.5}
    path = save({"model": {"w": torch.ones(2)}, "scheduler": other}, tmp_path / "w.pth", zipped=True)
    assert list(read_state_dict(path)) == ["w"]


@FORMATS
def test_a_damaged_file_is_an_error(zipped, tmp_path):
    path = save({"w": torch.randn(1000)}, tmp_path / "w.pth", zipped)
    content = path.read_bytes()
    for length in (0, 3, 30, len(content) // 2, len(content) - 20):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cannot be read"):
            read_state_dict(path)


def test_a_tensor_beyond_its_storage_is_an_error(tmp_path):
    path = save({"w": torch.zeros(3)}, tmp_path / "w.pth", zipped=False)
    content = path.read_bytes()
    shape = b"K\x03\x85"  # the tuple (3,)
    assert content.count(shape) == 1
    path.write_bytes(content.replace(shape, b"K\x09\x85"))
    with pytest.raises(ValueError, match="out of bounds"):
        read_state_dict(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_state_dict(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not weights at all")
    with pytest.raises(ValueError, match=r"not a file of torch\.save"):
        read_state_dict(tmp_path / "text.pth")
    with pytest.raises(ValueError, match="got list"):
        read_state_dict(save([torch.zeros(1)], tmp_path / "list.pth", zipped=True))
    with pytest.raises(ValueError, match="got int as 'epoch'"):
        read_state_dict(save({"w": torch.zeros(1), "epoch": 3}, tmp_path / "epoch.pth", zipped=True))
    (tmp_path / "w.safetensors").write_text("no")
    with pytest.raises(ValueError, match="cannot be read"):
        read_state_dict(tmp_path / "w.safetensors")


def test_safetensors_are_read(tmp_path):
    save_file({"module.w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "w.safetensors")["w"], torch.ones(2))
