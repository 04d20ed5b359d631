"""Predictions of multiple human parsing on disk, in the formats that people exchange: docs/formats.md.

>>> form = make_format("people")
>>> form.write(folder, "0001", Prediction.of(result)); form.finish(folder)     # doctest: +SKIP
>>> prediction = form.read(folder, "0001")                                     # doctest: +SKIP
"""

from pathlib import Path

from .coco import CocoJson
from .maps import InstanceMaps, PersonMaps
from .prediction import Prediction
from .server import CihpServer, MhpServer

FORMATS = {"instances": InstanceMaps, "people": PersonMaps, "coco": CocoJson, "cihp": CihpServer, "mhp": MhpServer}

__all__ = ["FORMATS", "Prediction", "detect_format", "make_format"]


def make_format(name: str):
    """The reader and writer of a format. Raises ValueError for an unknown name."""
    if name not in FORMATS:
        raise ValueError(f"format: must be one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]()


def detect_format(folder: str | Path) -> str:
    """The name of the format that a folder is in. Raises ValueError where it is none or several."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"predictions: {folder} is no folder")
    found = [name for name, form in FORMATS.items() if form().detect(folder)]
    if len(found) != 1:
        raise ValueError(
            f"predictions: {folder} looks like {' and '.join(found) or 'none'} of the formats {', '.join(FORMATS)}; "
            "name one with --format"
        )
    return found[0]
