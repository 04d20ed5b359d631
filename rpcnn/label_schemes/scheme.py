"""A label set, how the labels of a data set become its labels, and schemes from files."""

import pathlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rpcnn.labels import LabelSet


@dataclass(frozen=True)
class Scheme:
    """A label set, and how labels of other sets become its labels.

    Attributes:
        label_set: the labels of the result.
        becomes: for each name of a source label, the name of the target label; names that are missing become the
            background. Names are compared without regard to case.
        source: where the list of labels comes from.
        lost: what the result cannot tell apart, or does not have.
        may_be: for each target label, the names of the source labels that its pixels may have in the source. Where it
            is empty, `becomes` read backwards. It decides what is scored as one class when another system's maps are
            compared with a truth in source labels.
    """

    label_set: LabelSet
    becomes: Mapping[str, str]
    source: str
    lost: str
    may_be: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def table(self, labels: LabelSet) -> np.ndarray:
        """Lookup table uint8 [256] from labels of another set to those of the scheme; 255 stays 255.

        Raises:
            ValueError: none of the names of `labels` occurs in the scheme.
        """
        if labels.names == self.label_set.names:
            return np.arange(256, dtype=np.uint8)
        numbers = {name: number for number, name in enumerate(self.label_set.names)}
        becomes = {name.lower(): numbers[target] for name, target in self.becomes.items()}
        table = np.zeros(256, np.uint8)
        known = 0
        for number, name in enumerate(labels.names):
            if number and name.lower() in becomes:
                table[number] = becomes[name.lower()]
                known += 1
        if not known:
            raise ValueError(f"labels: {self.label_set.name} can be made of none of the labels of {labels.name}")
        table[255] = 255
        return table

    def meanings(self) -> dict[str, tuple[str, ...]]:
        """For each target label that has any, the names of the source labels that its pixels may have in the source."""
        if self.may_be:
            return dict(self.may_be)
        backwards: dict[str, tuple[str, ...]] = {}
        for name, target in self.becomes.items():
            backwards[target] = (*backwards.get(target, ()), name)
        return backwards


def read_scheme(path: pathlib.Path) -> Scheme:
    """Read a scheme of one's own.

    The file has `names`, a list whose first name is the background, and one of two tables, or both. [becomes] leads
    from names of the model's labels to these names. [may_be] leads from each of these names to the labels of the data
    set that its pixels may have; where it is missing, [becomes] is read backwards.

        names = ["Background", "skin", "cloth"]
        [becomes]
        Face = "skin"
        Pants = "cloth"
        [may_be]
        skin = ["Face", "Torso-skin"]

    Raises:
        ValueError: no such file, not TOML, or a key that is missing, unknown or wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is not TOML: {error}"
        raise ValueError(f"labels: {path}: {reason}") from None
    if unknown := sorted(values.keys() - {"names", "becomes", "may_be"}):
        raise ValueError(f"labels: {path}: a key must be names, becomes or may_be, got {unknown[0]!r}")
    names, becomes, may_be = values.get("names"), values.get("becomes", {}), values.get("may_be", {})
    if not isinstance(names, list) or not 2 <= len(names) <= 255 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"labels: {path}: names must be a list of 2 to 255 texts, the background first, got {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"labels: {path}: names must differ, got {names!r}")
    if not isinstance(becomes, dict) or not isinstance(may_be, dict) or not (becomes or may_be):
        raise ValueError(f"labels: {path}: [becomes] must be a table from names of labels to names, got {becomes!r}")
    for name, target in becomes.items():
        if target not in names:
            raise ValueError(f"labels: {path}: becomes.{name} must be one of names, got {target!r}")
    for name, sources in may_be.items():
        if name not in names:
            raise ValueError(f"labels: {path}: may_be.{name} must be named in names")
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            raise ValueError(f"labels: {path}: may_be.{name} must be a list of texts, got {sources!r}")
    lists = {name: tuple(sources) for name, sources in may_be.items()}
    return Scheme(LabelSet(path.stem, tuple(names)), becomes, source=str(path), lost="", may_be=lists)
