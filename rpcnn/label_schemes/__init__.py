"""Results in the labels of other pipelines, and their maps on our truth.

`rpcnn predict --labels NAME` and `ParsingResult.remap` write the labels of others; `rpcnn evaluate --map-classes NAME`
scores maps that others wrote. Both read the same tables.
"""

import pathlib

from .common import CommonClasses, common_classes
from .scheme import Scheme, read_scheme
from .tables import SCHEMES

__all__ = ["SCHEMES", "CommonClasses", "Scheme", "common_classes", "find_scheme", "read_scheme"]


def find_scheme(name: str) -> Scheme:
    """The scheme of a name or of a TOML file (`read_scheme`). Raises ValueError if there is none."""
    if name in SCHEMES:
        return SCHEMES[name]
    if name.endswith(".toml"):
        return read_scheme(pathlib.Path(name))
    raise ValueError(f"labels: must be {', '.join(SCHEMES)} or a .toml file, got {name!r}")
