"""The configuration of a run: fields with defaults (the paper's CIHP run), changed by presets, files and options."""

from .fields import Config
from .load import (
    change,
    changed_inference,
    check_keys,
    find_preset,
    from_dict,
    load_config,
    preset_names,
    to_dict,
    to_toml,
    typed,
)
from .words import Options

__all__ = [
    "Config",
    "Options",
    "change",
    "changed_inference",
    "check_keys",
    "find_preset",
    "from_dict",
    "load_config",
    "preset_names",
    "to_dict",
    "to_toml",
    "typed",
]
