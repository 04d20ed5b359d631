"""Load, change, check and write configurations.

Precedence: defaults < base preset of a file < the file < command line.
"""

import dataclasses
import difflib
import json
import pathlib
import tomllib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import tyro

from rpcnn.variant import PAPER, VARIANTS, Variant

from .fields import Config, InferenceConfig
from .imports import UNTRUSTED
from .old import renamed
from .ranges import RANGES, out_of_range
from .words import toml_value

PACKAGE = pathlib.Path(__file__).parent.parent


def preset_folder() -> pathlib.Path:
    """The folder of the presets: next to the package in a checkout, inside it in a wheel."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def find_preset(name: str | pathlib.Path) -> pathlib.Path:
    """The file of a preset.

    Args:
        name: a path, or the name of a preset.

    Raises:
        ValueError: there is no such file; the message suggests the nearest preset.
    """
    for path in (pathlib.Path(name), preset_folder() / name, preset_folder() / f"{name}.toml"):
        if path.is_file():
            return path
    known = preset_names()
    near = difflib.get_close_matches(str(name).removesuffix(".toml"), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    top = ", ".join(preset for preset in known if "/" not in preset)
    raise ValueError(f"config: {str(name)!r} is neither a file nor a preset ({top}, ablations/…){hint}")


def preset_names() -> list[str]:
    """Names of all presets, as `load_config` takes them: painted, …, ablations/cihp_gse, …"""
    return sorted(
        path.relative_to(preset_folder()).with_suffix("").as_posix() for path in preset_folder().rglob("*.toml")
    )


def load_config(path: str | pathlib.Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Load a configuration: defaults, changed by a preset, changed by command-line style overrides.

    A file may begin with base = "NAME", a preset whose values it changes.

    Args:
        path: a TOML file or the name of a preset; None is the preset "painted".
        overrides: e.g. ["--train.iterations", "100", "--seed", "1"].

    Raises:
        ValueError: no such file, an unknown key (the message suggests the nearest), a value of the wrong type, or a
            base that has a base itself.
        SystemExit: an unknown or malformed override; tyro prints which.
    """
    path = find_preset(path or "painted")
    values = _read_toml(path)
    if "base" in values:
        if not isinstance(values["base"], str):
            raise ValueError(f"{path}: base must be the name of a preset, got {values['base']!r}")
        base = _read_toml(find_preset(values.pop("base")))
        if "base" in base:
            raise ValueError(f"{path}: base must be a preset without a base of its own")
        for group, entries in values.items():
            below = base.get(group, {})
            below = below if isinstance(below, dict) else {"base": below}  # variant = "released"
            dataset = entries.get("dataset") if group == "data" and isinstance(entries, dict) else None
            if dataset and dataset != below.get("dataset"):
                below = {key: value for key, value in below.items() if key != "options"}  # options belong to a data set
            base[group] = {**below, **entries} if isinstance(entries, dict) else entries
        values = base
    config = from_dict(values, source=str(path))
    if overrides:
        return change(config, overrides, prog="rpcnn train")
    validate(config, str(path))
    return config


def _read_toml(path: pathlib.Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, and numbers of thousands of digits, are ValueError
        raise ValueError(f"config: {path} is not TOML: {error}") from None


def from_dict(values: dict, source: str = "config") -> Config:
    """Make a Config from nested dictionaries; missing keys keep their defaults.

    Configurations from before version 0.2 are supported: their fields are moved to the current names.

    Raises:
        ValueError: as :func:`load_config`; `source` begins the message.
    """
    _check_tables(values, source)
    values = renamed(values, source)
    config = Config()
    check_keys(values, [f.name for f in dataclasses.fields(config)], source)
    config.variant = _variant(values.pop("variant", "paper"), source)
    for group, entries in values.items():
        section = getattr(config, group)
        for key, value in _typed_fields(type(section), entries, f"{source} [{group}]", f"{source}: {group}").items():
            setattr(section, key, value)
    return config


def _check_tables(values: Any, source: str) -> None:
    """Raise ValueError unless the values are nested as groups of fields."""
    if not isinstance(values, dict):
        raise ValueError(f"{source}: must hold tables, got {values!r}")
    for group, entries in values.items():
        if not isinstance(entries, dict) and group != "variant":
            raise ValueError(f"{source}: [{group}] must be a table, got {entries!r}")
    for group, key in (("data", "options"), ("model", "parts")):
        table = values.get(group, {}).get(key, {})
        if not isinstance(table, dict):
            raise ValueError(f"{source}: {group}.{key} must be a table, got {table!r}")
    for part, arguments in values.get("model", {}).get("parts", {}).items():
        if not isinstance(arguments, dict):
            raise ValueError(f"{source}: model.parts.{part} must be a table, got {arguments!r}")


def _variant(value: str | dict, source: str) -> Variant:
    """The variant of a name, or of a table with fields that differ from its `base` (default: the paper)."""
    changes = dict(value) if isinstance(value, dict) else {"base": value}
    base = changes.pop("base", "paper")
    if not isinstance(base, str) or base not in VARIANTS:
        raise ValueError(f"{source}: variant must be one of {', '.join(VARIANTS)}, or a table, got {base!r}")
    fields = _typed_fields(Variant, changes, f"{source} [variant]", f"{source}: variant")
    return dataclasses.replace(VARIANTS[base], **fields)


def _typed_fields(section: type, entries: dict, place: str, prefix: str) -> dict:
    """Check that all keys are fields of the dataclass `section` and convert the values to the types of the fields."""
    hints = typing.get_type_hints(section)
    check_keys(entries, list(hints), place)
    return {key: typed(value, hints[key], f"{prefix}.{key}") for key, value in entries.items()}


def check_keys(given: Iterable[str], known: list[str], source: str) -> None:
    """Raise ValueError, which suggests the nearest known key, if a given key is not known."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known) or 'none'}"
            raise ValueError(f"{source}: unknown key {key!r}; {hint}")


def typed(value: Any, hint: Any, name: str) -> Any:
    """Convert a value to the type of its field; raise ValueError if it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{name}: must be one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        for option in arguments:
            try:
                return typed(value, option, name)
            except ValueError:
                continue
    if origin is dict and isinstance(value, dict):
        return dict(value)
    if origin is Sequence and isinstance(value, list | tuple):
        return tuple(typed(item, arguments[0], name) for item in value)
    if origin is tuple and isinstance(value, list | tuple):
        if ... not in arguments and len(value) != len(arguments):
            raise ValueError(f"{name}: must hold {len(arguments)} values, got {value!r}")
        return tuple(typed(item, arguments[0], name) for item in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    is_flag_for_number = hint is int and isinstance(value, bool)
    if origin is None and isinstance(hint, type) and isinstance(value, hint) and not is_flag_for_number:
        return value
    wanted = f"a list of {arguments[0].__name__}" if origin is Sequence else getattr(hint, "__name__", hint)
    raise ValueError(f"{name}: must be {wanted}, got {value!r}")


def validate(config: Config, source: str = "config") -> None:
    """Raise ValueError, which begins with `source`, if a value is out of range or two fields contradict each other."""
    data, model, train, run = config.data, config.model, config.train, config.run
    for name in RANGES:
        group, field = name.split(".")
        if problem := out_of_range(name, getattr(getattr(config, group), field)):
            raise ValueError(f"{source}: {problem}")
    rules = [
        (data.short_side[0] <= data.short_side[1], "data.short_side must be a range, low high"),
        (bool(model.anchor_sizes), "model.anchor_sizes must hold at least one size"),
        *(
            (getattr(model, name) % model.num_groups == 0, f"model.{name} must be a multiple of num_groups")
            for name in ("fpn_channels", "parsing_channels")
        ),
        (train.ema_decay < 1, "train.ema_decay must be less than 1"),
        (
            not run.patience or run.evaluate_every,
            "run.patience counts the evaluations of run.evaluate_every, which is 0",
        ),
        (list(train.steps) == sorted(train.steps), "train.steps must ascend"),
    ]
    for holds, message in rules:
        if not holds:
            raise ValueError(f"{source}: {message}")


def changed_inference(config: Config, changes: dict, source: str) -> Config:
    """Copy a configuration with changed fields of its group inference.

    Args:
        changes: values by the name of the field.
        source: begins error messages.

    Raises:
        ValueError: no such field, or a value of the wrong type or out of range.
    """
    fields = _typed_fields(InferenceConfig, changes, source, source)
    changed = dataclasses.replace(config, inference=dataclasses.replace(config.inference, **fields))
    validate(changed)
    return changed


def change(config: Config, arguments: Sequence[str], prog: str) -> Config:
    """Apply command-line arguments to a configuration and validate it.

    Given data.options and model.parts are merged over those of the configuration; if the arguments change the data set,
    data.options replace them.

    Raises:
        ValueError: a value is out of range, or two fields contradict each other.
        SystemExit: an unknown or malformed argument (tyro prints which), or --help.
    """
    changed = tyro.cli(Config, default=config, args=list(arguments), prog=prog)
    if changed.data.dataset == config.data.dataset.removeprefix(UNTRUSTED):
        changed.data.options = config.data.options | changed.data.options
    elif changed.data.options == config.data.options:
        changed.data.options = {}
    for part, kept in config.model.parts.items():
        changed.model.parts[part] = kept | changed.model.parts.get(part, {})
    validate(changed)
    return changed


def to_dict(config: Config) -> dict:
    """Convert to nested dictionaries of plain values; `variant` is a name, or a table of the changes to the paper."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    names = [name for name, variant in VARIANTS.items() if variant == config.variant]
    paper = json.loads(json.dumps(dataclasses.asdict(PAPER)))
    changed = {key: value for key, value in values["variant"].items() if value != paper[key]}
    return values | {"variant": names[0] if names else changed}


def to_toml(config: Config) -> str:
    """Write the whole configuration as TOML, from which ``load_config`` makes an equal configuration."""
    lines = []
    for group, entries in to_dict(config).items():
        if isinstance(entries, str):
            lines += [f"{group} = {json.dumps(entries)}", ""]
        else:
            lines += [f"[{group}]", *(f"{key} = {toml_value(value)}" for key, value in entries.items()), ""]
    return "\n".join(lines)
