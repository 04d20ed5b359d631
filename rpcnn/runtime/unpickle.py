"""Reading state dicts from untrusted files without executing code, in memory and time bounded by the file's size.

torch.save writes a pickle, which can import and call anything. torch.load(weights_only=True) refuses files with classes
that torch does not know, such as training checkpoints that hold a configuration or a scheduler. Here unknown classes
become empty dictionaries, only five constructors of plain values can be called, and only the tensors of the network are
read. A pickle of a few bytes may also ask for gigabytes, or hash nested tuples for years; see `Unpickler`.
"""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

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
MOST_PICKLE = 4 << 20
"""Bytes of the pickles of a file, storages apart: those of 281 tensors with an optimizer take 0.1 MB. A byte of pickle
may be an empty set, which takes 216."""


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


class Bounded(io.RawIOBase):
    """The next `size` bytes of a file. Asked for more, it reads no more, and takes no memory for it."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.left = file, size

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = self.file.readline(self.left)
        self.left -= len(line)
        return line


def _key(value: Any) -> Any:
    """The value as a key: an `Unknown` in place of a nested one, whose hash may take longer than anybody waits."""
    return value if value is None or isinstance(value, str | bytes | int | float | Unknown) else Unknown()


def _ordered_dict(pairs: Any = ()) -> OrderedDict:
    return OrderedDict((_key(key), value) for key, value in (pairs.items() if isinstance(pairs, dict) else pairs))


class Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Unpickler that returns `StoredTensor` for tensors and `Unknown` for objects that are no plain values.

    It is Python's own in Python, since that in C allocates its memo by the largest index that a pickle names. Keys that
    are neither text nor numbers become `Unknown`. Byte arrays, which are allocated before they are read, are refused.

    `storages` holds dtype and number of elements of each storage by key.
    """

    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: BinaryIO | Bounded):
        super().__init__(file, encoding="latin1")  # bytes of Python 2 become text
        self.storages: dict[str, tuple[torch.dtype, int]] = {}

    def find_class(self, module: str, name: str):
        if module in ("torch", "torch.cuda") and name in DTYPES:
            return DTYPES[name]
        # Bound methods, because a pickle may set attributes of these objects and bound methods do not allow it.
        known = {
            ("collections", "OrderedDict"): _ordered_dict,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
        }
        return known.get((module, name), Unknown)

    def persistent_load(self, identity) -> str:
        kind, dtype, key, _device, count, *view = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str | int):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        if not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError(f"storage {key} has no number of elements")
        if any(part is not None for part in view):
            raise pickle.UnpicklingError(f"storage {key} is a part of another, as torch before 0.4 wrote them")
        self.storages[key] = (dtype, count)
        return key

    def _tensor(self, storage: str, offset: int, shape, stride, *_gradient_and_hooks) -> StoredTensor:
        return StoredTensor(storage, offset, shape=tuple(shape), stride=tuple(stride))

    def _parameter(self, data: StoredTensor, *_gradient_and_hooks) -> StoredTensor:
        return data

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_key(key)] = value

    def load_setitems(self):
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def load_dict(self):
        items = self.pop_mark()
        self.append({_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def load_additems(self):
        items = self.pop_mark()
        for item in items:
            self.stack[-1].add(_key(item))

    def load_frozenset(self):
        self.append(frozenset(map(_key, self.pop_mark())))

    def load_bytearray8(self):
        raise pickle.UnpicklingError("a byte array, which torch does not write")

    dispatch |= {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a file, see :func:`read_checkpoint`."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """Read the state dict of a .safetensors, .pth or .pt file on the CPU without executing code.

    Of a training checkpoint, the entry `model` or `state_dict` is read. A prefix "module." of all names is removed.
    Reading takes memory of the order of the file's size.

    Returns:
        The state dict, and the names of the other entries of the checkpoint, which are not read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither a safetensors file nor one of torch.save (of any version), damaged, no dict of tensors or an
            empty one, or a tensor of another dtype than those of DTYPES.
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
        if not state:
            raise ValueError("it holds no tensors")
        for key, value in state.items():
            if value.dtype not in DTYPES.values():
                raise ValueError(f"{key} must hold floats, integers or bools, got {value.dtype}")
    except Exception as error:  # whatever a damaged file raises
        reason = f"{error}"[:300] or type(error).__name__
        raise ValueError(f"weights: {path} cannot be read: {reason}") from None
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state, others


def _state_dict(tree) -> tuple[dict[str, StoredTensor], list[str]]:
    """The dict of tensors in an unpickled checkpoint, and the names of the other entries."""
    others = []
    for wrapper in WRAPPERS:
        if isinstance(tree, dict) and isinstance(dict.get(tree, wrapper), dict):
            others += [str(key) for key in dict.keys(tree) if key != wrapper]
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
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        found = [name for name in names if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ValueError("a zip archive, but not of torch.save: no data.pkl in it")
        root = found[0].removesuffix("data.pkl")
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ValueError(
                "a compressed zip archive; torch.save does not compress, and such a file has no bounded size"
            )
        if f"{root}byteorder" in names:
            with archive.open(f"{root}byteorder") as record:
                if record.read(7) != b"little":
                    raise ValueError("written on a big-endian machine")
        with archive.open(found[0]) as record:
            unpickler = Unpickler(Bounded(record, MOST_PICKLE))
            stored, others = _state_dict(unpickler.load())
        storages = {}
        for key in {tensor.storage for tensor in stored.values()}:
            dtype, count = unpickler.storages[key]
            record = archive.getinfo(f"{root}data/{key}")
            if record.file_size != count * dtype.itemsize:
                raise ValueError(f"storage {key} does not have the {count} elements announced")
            size -= record.file_size
            if size < 0:  # records of an archive may lie on one another
                raise ValueError("its storages together are larger than the file")
            with archive.open(record) as numbers:
                storages[key] = _read_storage(numbers, dtype, count)
    return _tensors(stored, storages), others


def _read_legacy(file: BinaryIO) -> tuple[dict[str, Tensor], list[str]]:
    """Read the format before torch 1.6.

    The file holds pickles of a magic number, a version, the system, the object and the keys of its storages, then the
    storages, each after its number of elements.
    """
    pickles = Bounded(file, MOST_PICKLE)
    try:
        magic = Unpickler(pickles).load()
    except Exception:
        magic = None
    if not isinstance(magic, int) or magic != LEGACY_MAGIC:
        raise ValueError("not a file of torch.save")
    Unpickler(pickles).load()
    if not Unpickler(pickles).load()["little_endian"]:
        raise ValueError("written on a big-endian machine")
    unpickler = Unpickler(pickles)
    stored, others = _state_dict(unpickler.load())
    needed = {tensor.storage for tensor in stored.values()}
    storages, size = {}, os.fstat(file.fileno()).st_size
    for key in Unpickler(pickles).load():
        if not isinstance(key, str | int) or key not in unpickler.storages or key in storages:
            raise ValueError("its list of storages does not fit")
        dtype, count = unpickler.storages[key]
        if count * dtype.itemsize > size - file.tell():
            raise ValueError("the file ends before its last number")
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
