"""Label sets: the labels of a data set, their left/right pairs and their colors."""

from dataclasses import dataclass, field

import numpy as np

IGNORE = 255
"""Label that losses and metrics ignore, in all data sets."""


def voc_palette(num_colors: int) -> tuple[tuple[int, int, int], ...]:
    """The PASCAL VOC color map: `num_colors` RGB triples in 0..255.

    Bits 0, 1, 2 of the index are the highest bits of red, green and blue, bits 3, 4, 5 the next lower ones. Adjacent
    indices have clearly different colors, and a color does not depend on `num_colors`.
    """
    palette = []
    for index in range(num_colors):
        color = [0, 0, 0]
        for bit in range(8):  # from the highest bit of each channel down
            for channel in range(3):
                color[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        palette.append((color[0], color[1], color[2]))
    return tuple(palette)


@dataclass(frozen=True)
class LabelSet:
    """The labels of one data set.

    Args:
        name: of the label set.
        names: of the labels; names[0] is the background.
        pairs: (left, right) indices of the parts that are exchanged in a mirror image.
        palette: one RGB triple in 0..255 per label; by default the PASCAL VOC color map.

    Raises:
        ValueError: a pair or the palette does not fit the names.
    """

    name: str
    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    palette: tuple[tuple[int, int, int], ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.palette:
            object.__setattr__(self, "palette", voc_palette(len(self.names)))
        if len(self.palette) != len(self.names):
            raise ValueError(
                f"LabelSet {self.name}: palette must have one color per name, "
                f"got {len(self.palette)} colors for {len(self.names)} names"
            )
        paired = [label for pair in self.pairs for label in pair]
        if len(set(paired)) != len(paired) or any(not 0 < label < len(self.names) for label in paired):
            raise ValueError(
                f"LabelSet {self.name}: pairs must name each part once, within 1..{len(self.names) - 1}, "
                f"got {self.pairs}"
            )

    @property
    def num_classes(self) -> int:
        """Number of labels, background included."""
        return len(self.names)

    def to_dict(self) -> dict:
        """Convert to plain values, for JSON."""
        return {
            "name": self.name,
            "names": list(self.names),
            "pairs": [list(pair) for pair in self.pairs],
            "palette": [list(color) for color in self.palette],
        }

    @classmethod
    def from_dict(cls, values: dict) -> "LabelSet":
        """Make a label set from the result of `to_dict`. Raises ValueError as the constructor, and for other types."""
        name, names = values.get("name"), values.get("names")
        if not isinstance(name, str) or not _is_list(names, str):
            raise ValueError(
                f"LabelSet {name!r}: name and names must be a text and a list of texts, got names {names!r}"
            )
        for key, length in (("pairs", 2), ("palette", 3)):
            rows = values.get(key, [])
            if not _is_list(rows, list) or not all(len(row) == length and _is_list(row, int) for row in rows):
                raise ValueError(f"LabelSet {name}: {key} must be lists of {length} integers, got {rows!r}")
            if not all(0 <= value <= 255 for row in rows for value in row):
                raise ValueError(f"LabelSet {name}: {key} must hold values in 0..255, got {rows!r}")
        pairs = tuple(tuple(pair) for pair in values.get("pairs", ()))
        palette = tuple(tuple(color) for color in values.get("palette", ()))
        return cls(name, tuple(names or ()), pairs, palette)

    def unpaired_sides(self) -> list[tuple[str, str]]:
        """(left, right) names that differ in these two words only, in any case, and are in no pair."""
        paired = {label for pair in self.pairs for label in pair}
        free = {name.lower(): name for label, name in enumerate(self.names) if label and label not in paired}
        mirrored = {name: name.replace("left", "right") for name in free if "left" in name}
        return [(free[left], free[right]) for left, right in mirrored.items() if right in free]

    def flip_table(self) -> np.ndarray:
        """Lookup table uint8 [256] of labels in a mirror image; unpaired values, 255 included, map to themselves."""
        table = np.arange(256, dtype=np.uint8)
        for left, right in self.pairs:
            table[left], table[right] = right, left
        return table


def _is_list(values: object, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


# fmt: off
CIHP = LabelSet("CIHP", (
    "Background", "Hat", "Hair", "Glove", "Sunglasses", "UpperClothes", "Dress", "Coat", "Socks", "Pants",
    "Torso-skin", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
    "Right-shoe",
), pairs=((14, 15), (16, 17), (18, 19)))
"""Crowd Instance-level Human Parsing: 19 parts and background."""

MHP_V2 = LabelSet("MHP-v2", (
    "Background", "Cap/hat", "Helmet", "Face", "Hair", "Left-arm", "Right-arm", "Left-hand", "Right-hand",
    "Protector", "Bikini/bra", "Jacket/windbreaker/hoodie", "T-shirt", "Polo-shirt", "Sweater", "Singlet",
    "Torso-skin", "Pants", "Shorts/swim-shorts", "Skirt", "Stockings", "Socks", "Left-boot", "Right-boot",
    "Left-shoe", "Right-shoe", "Left-highheel", "Right-highheel", "Left-sandal", "Right-sandal", "Left-leg",
    "Right-leg", "Left-foot", "Right-foot", "Coat", "Dress", "Robe", "Jumpsuit", "Other-full-body-clothes",
    "Headwear", "Backpack", "Ball", "Bats", "Belt", "Bottle", "Carrybag", "Cases", "Sunglasses", "Eyewear",
    "Glove", "Scarf", "Umbrella", "Wallet/purse", "Watch", "Wristband", "Tie", "Other-accessary",
    "Other-upper-body-clothes", "Other-lower-body-clothes",
), pairs=((5, 6), (7, 8), (22, 23), (24, 25), (26, 27), (28, 29), (30, 31), (32, 33)))
"""Multi-Human Parsing v2.0: 58 parts and background."""

LIP = LabelSet("LIP", (
    "Background", "Hat", "Hair", "Glove", "Sunglasses", "UpperClothes", "Dress", "Coat", "Socks", "Pants",
    "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
    "Right-shoe",
), pairs=((14, 15), (16, 17), (18, 19)))
"""Look Into Person: as CIHP, but label 10 is Jumpsuits where CIHP has Torso-skin."""

PASCAL_PERSON_PART = LabelSet("PASCAL-Person-Part", (
    "Background", "Head", "Torso", "Upper-arms", "Lower-arms", "Upper-legs", "Lower-legs",
))
"""PASCAL-Person-Part: 6 parts and background, without distinction of left and right."""
# fmt: on
