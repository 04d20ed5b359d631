"""How values are written on the command line and in TOML."""

import json
import tomllib
from typing import Annotated, Any

import tyro

from rpcnn.variant import VARIANTS, Variant


def short_flag(flag: str) -> Any:
    """A field with a short command-line flag besides the full one."""
    return tyro.conf.arg(aliases=[flag])


def _variant_of(words: list[str]) -> Variant:
    if words[0] not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}")
    return VARIANTS[words[0]]


def _options_of(words: list[str]) -> dict[str, Any]:
    """Parse KEY=VALUE words as the lines of a TOML table; a value that is not TOML is a string."""
    lines = []
    for word in words:
        key, equals, text = word.partition("=")
        names = key.split(".")
        if not equals or not all(name.isidentifier() for name in names):
            raise ValueError(f"options must be KEY=VALUE, got {word!r}")
        try:
            tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            text = json.dumps(text, ensure_ascii=False)
        lines.append(".".join(f'"{name}"' for name in names) + f" = {text}")
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        raise ValueError(f"options must have every key once, got {' '.join(words)}") from None


def _words_of(options: dict[str, Any], prefix: str = "") -> list[str]:
    words = []
    for key, value in options.items():
        nested = isinstance(value, dict) and value
        words += _words_of(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}={toml_value(value)}"]
    return words


variant_by_name = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="{" + ",".join(VARIANTS) + "}",
    instance_from_str=_variant_of,
    is_instance=lambda value: isinstance(value, Variant),
    str_from_instance=lambda variant: [next((name for name, known in VARIANTS.items() if known == variant), "changed")],
)
key_value = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[KEY=VALUE …]",
    instance_from_str=_options_of,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=_words_of,
)
Options = Annotated[dict[str, Any], key_value]
"""Keyword arguments, of a data set's class or of the parts of the network; KEY=VALUE words on the command line."""


def toml_value(value: Any) -> str:
    """A value as TOML. Strings, numbers, booleans and arrays are written as JSON; only tables differ."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml_value(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)
