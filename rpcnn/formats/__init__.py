"""Reads and writes predictions of multiple human parsing in the common formats, see docs/formats.md.

>>> format = make_format("people")
>>> format.write(folder, "0001", Prediction.of(result))         # doctest: +SKIP
>>> format.finish(folder)                                       # doctest: +SKIP
>>> prediction = format.read(folder, "0001")                    # doctest: +SKIP
"""

from pathlib import Path

from .coco import CocoJson
from .format import Format
from .maps import InstanceMaps, LabelMaps, PersonMaps
from .prediction import Prediction
from .server import CihpServer, MhpServer

FORMATS: dict[str, type[Format]] = {
    "instances": InstanceMaps,
    "people": PersonMaps,
    "coco": CocoJson,
    "cihp": CihpServer,
    "mhp": MhpServer,
    "labels": LabelMaps,
}

__all__ = ["FORMATS", "Format", "Prediction", "detect_format", "make_format"]


def make_format(name: str) -> Format:
    """Make the reader and writer of a format in FORMATS. Raises ValueError for an unknown name."""
    if name not in FORMATS:
        raise ValueError(f"format: must be one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]()


def detect_format(folder: str | Path) -> str:
    """Find the name of the format of a folder's files. Raises ValueError if no format or several formats match."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"predictions: {folder} is no folder")
    found = [name for name, format in FORMATS.items() if format().detect(folder)]
    if len(found) != 1:
        inside = folder / "predictions"
        hint = f"did you mean {inside}?" if not found and inside.is_dir() else "name one with --format"
        raise ValueError(
            f"predictions: {folder} looks like {' and '.join(found) or 'none'} of the formats {', '.join(FORMATS)}; "
            f"{hint}"
        )
    return found[0]
