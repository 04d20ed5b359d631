"""Results in the labels of other pipelines: `rpcnn predict --labels NAME` and `ParsingResult.remap`.

Each scheme says which of its labels a CIHP label becomes, and what cannot be told apart. Sources: the label lists that
the data sets and models publish.
"""

import pathlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .labels import LabelSet


@dataclass(frozen=True)
class Scheme:
    """A label set, and how labels of other sets become its labels.

    Attributes:
        label_set: the labels of the result.
        becomes: for each name of a source label, the name of the target label; names that are missing become the
            background. Names are compared without regard to case.
        source: where the list of labels comes from.
        lost: what the result cannot tell apart, or does not have.
    """

    label_set: LabelSet
    becomes: Mapping[str, str]
    source: str
    lost: str

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


_SIDES = {f"{side}-{part}": f"{side}-{part}" for part in ("arm", "leg", "shoe") for side in ("Left", "Right")}

# fmt: off
LIP = Scheme(
    LabelSet("LIP", (
        "Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks", "Pants",
        "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
        "Right-shoe",
    ), pairs=((14, 15), (16, 17), (18, 19))),
    {name: name for name in ("Hat", "Hair", "Glove", "Sunglasses", "Dress", "Coat", "Socks", "Pants", "Scarf", "Skirt",
                             "Face")} | {"UpperClothes": "Upper-clothes"} | _SIDES,
    source="Look into Person, 20 labels (Gong et al., CVPR 2017)",
    lost="Torso-skin becomes background, which is what LIP labels a neck; no pixel becomes Jumpsuits.",
)
ATR = Scheme(
    LabelSet("ATR", (
        "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe",
        "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
    ), pairs=((9, 10), (12, 13), (14, 15))),
    {name: name for name in ("Hat", "Hair", "Sunglasses", "Skirt", "Pants", "Dress", "Scarf", "Face")}
    | {"UpperClothes": "Upper-clothes", "Coat": "Upper-clothes"} | _SIDES,
    source="ATR, 18 labels in the order of the parsers trained on it (Liang et al., TPAMI 2015)",
    lost="Coats become Upper-clothes; gloves, socks and torso-skin background; no pixel becomes Belt or Bag.",
)
PASCAL_PERSON_PART = Scheme(
    LabelSet("PASCAL-Person-Part", (
        "Background", "Head", "Torso", "Upper-arms", "Lower-arms", "Upper-legs", "Lower-legs",
    )),
    {"Hat": "Head", "Hair": "Head", "Sunglasses": "Head", "Face": "Head", "UpperClothes": "Torso", "Dress": "Torso",
     "Coat": "Torso", "Torso-skin": "Torso", "Scarf": "Torso", "Glove": "Lower-arms", "Left-arm": "Lower-arms",
     "Right-arm": "Lower-arms", "Pants": "Upper-legs", "Skirt": "Upper-legs", "Left-leg": "Lower-legs",
     "Right-leg": "Lower-legs", "Socks": "Lower-legs", "Left-shoe": "Lower-legs", "Right-shoe": "Lower-legs"},
    source="PASCAL-Person-Part, 7 labels (Chen et al., CVPR 2014)",
    lost="Upper and lower limbs are not told apart: bare arms are Lower-arms, sleeves Torso, trousers Upper-legs.",
)
BODY = Scheme(
    LabelSet("body", ("Background", "Head", "Upper-body", "Arms", "Lower-body", "Legs", "Feet")),
    {"Hat": "Head", "Hair": "Head", "Sunglasses": "Head", "Face": "Head", "UpperClothes": "Upper-body",
     "Dress": "Upper-body", "Coat": "Upper-body", "Torso-skin": "Upper-body", "Scarf": "Upper-body", "Glove": "Arms",
     "Left-arm": "Arms", "Right-arm": "Arms", "Pants": "Lower-body", "Skirt": "Lower-body", "Left-leg": "Legs",
     "Right-leg": "Legs", "Socks": "Feet", "Left-shoe": "Feet", "Right-shoe": "Feet"},
    source="of this package: what masks for try-on and inpainting ask for",
    lost="A dress is Upper-body down to its hem.",
)
# fmt: on
SCHEMES = {"lip": LIP, "atr": ATR, "pascal_person_part": PASCAL_PERSON_PART, "body": BODY}


def find_scheme(name: str) -> Scheme:
    """The scheme of a name or of a TOML file (`read_scheme`). Raises ValueError if there is none."""
    if name in SCHEMES:
        return SCHEMES[name]
    if name.endswith(".toml"):
        return read_scheme(pathlib.Path(name))
    raise ValueError(f"labels: must be {', '.join(SCHEMES)} or a .toml file, got {name!r}")


def read_scheme(path: pathlib.Path) -> Scheme:
    """Read a scheme of one's own.

    The file has `names`, a list whose first name is the background, and a table [becomes] from names of the model's
    labels to these names:

        names = ["Background", "skin", "cloth"]
        [becomes]
        Face = "skin"
        Pants = "cloth"

    Raises:
        ValueError: no such file, not TOML, or a key that is missing or wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is not TOML: {error}"
        raise ValueError(f"labels: {path}: {reason}") from None
    names, becomes = values.get("names"), values.get("becomes")
    if not isinstance(names, list) or not 2 <= len(names) <= 255 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"labels: {path}: names must be a list of 2 to 255 texts, the background first, got {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"labels: {path}: names must differ, got {names!r}")
    if not isinstance(becomes, dict) or not becomes:
        raise ValueError(f"labels: {path}: [becomes] must be a table from names of labels to names, got {becomes!r}")
    for name, target in becomes.items():
        if target not in names:
            raise ValueError(f"labels: {path}: becomes.{name} must be one of names, got {target!r}")
    return Scheme(LabelSet(path.stem, tuple(names)), becomes, source=str(path), lost="")
