"""The data sets by name, and data sets imported from your own modules."""

import difflib
import inspect
from pathlib import Path

from rpcnn.config.imports import import_object
from rpcnn.labels import LabelSet

from .cihp import CIHP
from .dataset import PeopleDataset
from .files import DataFault
from .folder import Folder
from .lip import LIP
from .mhp import MHPv2
from .painted.dataset import Painted
from .pascal_person_part import PascalPersonPart
from .rendered.dataset import Rendered

DATASETS: dict[str, type[PeopleDataset]] = {
    "cihp": CIHP,
    "mhpv2": MHPv2,
    "lip": LIP,
    "pascal_person_part": PascalPersonPart,
    "folder": Folder,
    "painted": Painted,
    "rendered": Rendered,
}


def dataset_class(name: str) -> type[PeopleDataset]:
    """Find the class of a data set by its name in DATASETS or by "package.module:Class".

    Raises:
        ValueError: there is no such class, it is not a subclass of PeopleDataset, or it lacks a member.
    """
    if name in DATASETS:
        return DATASETS[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"data.dataset: must be one of {', '.join(DATASETS)}, or package.module:Class, got {name!r}{hint}"
        )
    found = import_object(name, "data.dataset")
    if not (isinstance(found, type) and issubclass(found, PeopleDataset)):
        raise ValueError(f"data.dataset: {name} must be a subclass of rpcnn.data.dataset.PeopleDataset, got {found!r}")
    missing = sorted(found.__abstractmethods__)
    if not hasattr(found, "labels") and found.label_set.__func__ is PeopleDataset.label_set.__func__:
        missing.append("labels")
    if missing:
        raise ValueError(f"data.dataset: {name} has no {', '.join(missing)}; see rpcnn.data.dataset.PeopleDataset")
    return found


def open_split(root: str | Path, split: str, name: str = "", options: dict | None = None, seed: int = 0):
    """Open a split of a data set that has images; see :func:`make_split`.

    Raises:
        DataFault: no image can be used.
        OSError, ValueError: as `make_split`.
    """
    dataset = make_split(root, split, name, options, seed)
    if not len(dataset):
        why = f"none of {len(dataset.faults)} images can be used" if dataset.faults else "there are no images"
        raise DataFault(f"{type(dataset).__name__}: {why} in the split {split} of {root}")
    return dataset


def make_split(root: str | Path, split: str, name: str = "", options: dict | None = None, seed: int = 0):
    """Make the data set of a split, which may be empty.

    Args:
        root: the folder of the data set.
        split: the name of the split.
        name: see :func:`dataset_class`; "" detects a data set of DATASETS by its files.
        options: further keyword arguments of the class.
        seed: the default of the option `seed`, if the class has one.

    Raises:
        OSError, ValueError: unknown data set, split or option, or an invalid folder.
    """
    cls = dataset_class(name or detect_dataset(root))
    options = check_options(cls, options or {})
    cls.check_split(split)
    signature = inspect.signature(cls)
    if "seed" in signature.parameters:
        options = {"seed": seed} | options
    try:
        signature.bind(root, split, **options)
    except TypeError as error:
        raise ValueError(f"data.options: {cls.__name__}(root, split, …): {error}") from None
    dataset = cls(Path(root), split, **options)
    _require_label_set(cls, getattr(dataset, "labels", None))
    return dataset


def label_set_of(root: str | Path, name: str, options: dict) -> LabelSet:
    """Return the labels of a data set without reading its images. Raises OSError and ValueError as `open_split`."""
    cls = dataset_class(name)
    return _require_label_set(cls, cls.label_set(Path(root), **check_options(cls, options)))


def _require_label_set(cls: type[PeopleDataset], labels) -> LabelSet:
    if not isinstance(labels, LabelSet):
        raise ValueError(f"{cls.__name__}: labels must be an rpcnn.labels.LabelSet, got {labels!r}")
    return labels


def check_options(cls: type[PeopleDataset], options: dict) -> dict:
    """Return the options. Raises ValueError if one is not an option of the class."""
    parameters = list(inspect.signature(cls).parameters.values())[2:]  # those after root and split
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [key for key in options if key not in names]
    if unknown and not any(p.kind == p.VAR_KEYWORD for p in parameters):
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"data.options: {cls.__name__} takes {', '.join(names) or 'no options'}, got {unknown[0]!r}{hint}"
        )
    return options


def detect_dataset(root: str | Path) -> str:
    """Detect the data set in `root` by its files and return its name in DATASETS.

    Raises:
        NotADirectoryError: `root` is not a folder.
        FileNotFoundError: `root` does not exist, or no data set matches. If a folder in `root` has one, the message
            names the folder.
        ValueError: several data sets match.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    found = _detected(root)
    if len(found) > 1:
        raise ValueError(f"{root}: may be {' or '.join(found)}; choose with --dataset")
    if found:
        return found[0]
    looked_for = "; ".join(f"{name}: {cls.layout}" for name, cls in DATASETS.items() if cls.layout)
    inner = sorted(path for path in root.iterdir() if path.is_dir() and _detected(path))
    raise FileNotFoundError(
        f"{root}: holds no data set that is recognized ({looked_for})" + (f"; {inner[0]} does" if inner else "")
    )


def _detected(root: Path) -> list[str]:
    return [name for name, cls in DATASETS.items() if cls.detect(root)]
