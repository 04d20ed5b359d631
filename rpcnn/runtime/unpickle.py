"""Reading state dicts from untrusted files without executing code.

torch.save writes a pickle, which can import and call anything. torch.load(weights_only=True) refuses files with classes
that torch does not know, such as training checkpoints that hold a configuration or a scheduler. Here unknown classes
become empty dictionaries, only five constructors of plain values can be called, and only the tensors of the network are
read.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file of torch before 1.6
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
WRAPPERS = ("state_dict", "model")  # entries of a training checkpoint that hold the network


class Unknown(dict):
    """Replaces instances of unknown classes and results of unknown functions in a pickle.

    Accepts any arguments, state and items; keeps only its items.
    """

    __hash__ = object.__hash__  # it may be a key

    def __init__(self, *args, **kwargs):
        super().__init__()

    def __setstate__(self, state):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass

    add = append


class StoredTensor(NamedTuple):
    """A tensor whose data is still in the file; strides and offset are in elements of its storage."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Unpickler(pickle.Unpickler):
    """Unpickler that returns `StoredTensor` for tensors and `Unknown` for objects that are no plain values.

    `storages` holds dtype and number of elements of each storage by key.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")  # bytes of Python 2 become text
        self.storages: dict[str, tuple[torch.dtype, int]] = {}

    def find_class(self, module: str, name: str):
        if module in ("torch", "torch.cuda") and name in DTYPES:
            return DTYPES[name]
        # Bound methods, because a pickle may set attributes of these objects and bound methods do not allow it.
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
        }
        return known.get((module, name), Unknown)

    def persistent_load(self, identity) -> str:
        kind, dtype, key, _device, count, *view = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown storage {identity!r}")
        if any(part is not None for part in view):
            raise pickle.UnpicklingError(f"storage {key} is a part of another, as torch before 0.4 wrote them")
        self.storages[key] = (dtype, count)
        return key

    def _tensor(self, storage: str, offset: int, shape, stride, *_gradient_and_hooks) -> StoredTensor:
        return StoredTensor(storage, offset, shape=tuple(shape), stride=tuple(stride))

    def _parameter(self, data: StoredTensor, *_gradient_and_hooks) -> StoredTensor:
        return data


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a file, see :func:`read_checkpoint`."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """Read the state dict of a .safetensors, .pth or .pt file on the CPU without executing code.

    Of a training checkpoint, the entry `model` or `state_dict` is read. A prefix "module." of all names is removed.

    Returns:
        The state dict, and the names of the other entries of the checkpoint, which are not read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither a safetensors file nor one of torch.save (of any version), damaged, or no dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file {path}")
    others = []
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            with path.open("rb") as file:
                zipped = file.read(4) == b"PK\x03\x04"
                file.seek(0)
                state, others = (_read_zipped if zipped else _read_legacy)(file)
    except Exception as error:  # whatever a damaged file raises
        raise ValueError(f"weights: {path} cannot be read: {error or type(error).__name__}") from None
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state, others


def _state_dict(tree) -> tuple[dict[str, StoredTensor], list[str]]:
    """The dict of tensors in an unpickled checkpoint, and the names of the other entries."""
    others = []
    for wrapper in WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), dict):
            others += [str(key) for key in tree if key != wrapper]
            tree = tree[wrapper]
    if not isinstance(tree, dict):
        raise ValueError(f"it must hold a dict of tensors by name, got {type(tree).__name__}")
    for key, value in dict.items(tree):
        if not (isinstance(key, str) and isinstance(value, StoredTensor)):
            kind = "an unknown object" if isinstance(value, Unknown) else type(value).__name__
            raise ValueError(f"it must hold a dict of tensors by name, got {kind} as {key!r}")
    return dict(dict.items(tree)), others


def _read_zipped(file: BinaryIO) -> tuple[dict[str, Tensor], list[str]]:
    """Read the format since torch 1.6: an uncompressed zip archive of the pickle and one record per storage."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        found = [name for name in names if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ValueError("a zip archive, but not of torch.save: no data.pkl in it")
        root = found[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("written on a big-endian machine")
        with archive.open(found[0]) as record:
            unpickler = Unpickler(record)
            stored, others = _state_dict(unpickler.load())
        storages = {}
        for key in {tensor.storage for tensor in stored.values()}:
            dtype, count = unpickler.storages[key]
            record = archive.getinfo(f"{root}data/{key}")
            if record.file_size != count * dtype.itemsize:
                raise ValueError(f"storage {key} does not have the {count} elements announced")
            with archive.open(record) as numbers:
                storages[key] = _read_storage(numbers, dtype, count)
    return _tensors(stored, storages), others


def _read_legacy(file: BinaryIO) -> tuple[dict[str, Tensor], list[str]]:
    """Read the format before torch 1.6.

    The file holds pickles of a magic number, a version, the system, the object and the keys of its storages, then the
    storages, each after its number of elements.
    """
    try:
        magic = Unpickler(file).load()
    except Exception:
        magic = None
    if magic != LEGACY_MAGIC:
        raise ValueError("not a file of torch.save")
    Unpickler(file).load()
    if not Unpickler(file).load()["little_endian"]:
        raise ValueError("written on a big-endian machine")
    unpickler = Unpickler(file)
    stored, others = _state_dict(unpickler.load())
    needed = {tensor.storage for tensor in stored.values()}
    storages = {}
    for key in Unpickler(file).load():
        dtype, count = unpickler.storages[key]
        if int.from_bytes(file.read(8), "little") != count:
            raise ValueError(f"storage {key} does not have the {count} elements announced")
        if key in needed:
            storages[key] = _read_storage(file, dtype, count)
        else:
            file.seek(count * dtype.itemsize, 1)
    return _tensors(stored, storages), others


def _read_storage(file: BinaryIO, dtype: torch.dtype, count: int) -> Tensor:
    data = bytearray(count * dtype.itemsize)
    if file.readinto(data) != len(data):
        raise ValueError("the file ends before its last number")
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _tensors(stored: dict[str, StoredTensor], storages: dict[str, Tensor]) -> dict[str, Tensor]:
    # as_strided raises if a tensor exceeds its storage.
    return {key: torch.as_strided(storages[s.storage], s.shape, s.stride, s.offset) for key, s in stored.items()}
