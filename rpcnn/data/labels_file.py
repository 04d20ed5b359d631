"""Reads labels.toml, the file that defines the classes of your own data."""

import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from rpcnn.labels import IGNORE, LabelSet, voc_palette

KEYS = ("name", "names", "pairs", "colors", "ignore")


def read_labels_file(path: Path) -> tuple[LabelSet, int]:
    """Read a label set and the value of ignored pixels from a labels.toml.

    All keys but `names` are optional:

    name    name of the label set (default: the name of the folder)
    names   class names in the order of their values in the maps; the first one, 0, is the background
    pairs   pairs of class names that are exchanged by horizontal flips: [["Left-arm", "Right-arm"]]
    colors  a table of colors for pictures, by class name: "#RRGGBB" (default: PASCAL VOC's)
    ignore  value of pixels that losses and metrics ignore (default: 255, which is always ignored)

    Args:
        path: the file.

    Returns:
        The label set, and the value of ignored pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not TOML or a key is invalid. The message has the file, the key, the expected and the
            given value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: does not exist; it must list the names of the classes") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, and numbers of thousands of digits, are ValueError
        raise ValueError(f"{path}: is not TOML: {error}") from None
    require = functools.partial(_require, path)
    for key in values:
        require(key in KEYS, "a key", f"one of {', '.join(KEYS)}", key, KEYS)
    name, names = values.get("name", path.resolve().parent.name), values.get("names")
    require(isinstance(name, str), "name", "a text", name)
    are_texts = isinstance(names, list) and all(isinstance(part, str) for part in names)
    expected = f"a list of 2 to {IGNORE} different names, the background first"
    require(are_texts and 2 <= len(set(names)) == len(names) <= IGNORE, "names", expected, names)
    pairs = _pairs(values.get("pairs", []), names, require)
    palette = _palette(values.get("colors", {}), names, require)
    ignore = values.get("ignore", IGNORE)
    is_free = type(ignore) is int and len(names) <= ignore <= IGNORE
    require(is_free, "ignore", f"a value of no class, {len(names)} to {IGNORE}", ignore)
    return LabelSet(name, tuple(names), pairs=pairs, palette=palette), ignore


def _pairs(pairs: list, names: list[str], require: Callable) -> tuple[tuple[int, int], ...]:
    require(isinstance(pairs, list), "pairs", "a list of pairs of names", pairs)
    used = []
    for pair in pairs:
        require(isinstance(pair, list) and len(pair) == 2, "pairs", "a list of pairs of names", pair)
        for part in pair:
            require(part in names[1:], "a name in pairs", "one of names, without the background", part, names)
            require(part not in used, "a name in pairs", "in one of them only", part)
            used.append(part)
    return tuple((names.index(left), names.index(right)) for left, right in pairs)


def _palette(colors: dict, names: list[str], require: Callable) -> tuple[tuple[int, int, int], ...]:
    require(isinstance(colors, dict), "colors", "a table", colors)
    palette = list(voc_palette(len(names)))
    for part, color in colors.items():
        require(part in names, "a name in colors", "one of names", part, names)
        is_color = isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color)
        require(is_color, f"colors.{part}", '"#RRGGBB"', color)
        palette[names.index(part)] = tuple(bytes.fromhex(color[1:]))
    return tuple(palette)


def _require(path: Path, condition, key: str, expected: str, value, known: Iterable[str] = ()) -> None:
    if not condition:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{path}: {key} must be {expected}, got {value!r}{hint}")
