"""Importing custom objects by name."""

import difflib
import importlib
from typing import Any

UNTRUSTED = "untrusted "


def untrusted(name: str) -> str:
    """Mark a name that a file of unknown origin holds: if it is "package.module:object", it is not imported."""
    return UNTRUSTED + name if ":" in name and not name.startswith(UNTRUSTED) else name


def import_object(name: str, argument: str) -> Any:
    """Import the object of a name such as "package.module:object".

    Args:
        argument: the setting that holds the name; error messages begin with it.

    Raises:
        ValueError: the name has another form or is `untrusted`, the module does not exist or does not have the object.
    """
    if name.startswith(UNTRUSTED):
        name = name.removeprefix(UNTRUSTED)
        raise ValueError(
            f"{argument}: the weights name {name}, whose code would run; if you trust it, give the name yourself: "
            f"--{argument} {name}"
            + (f" (predict: --backbone {name}; Predictor: backbone={name!r})" if argument == "model.backbone" else "")
        )
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise ValueError(f"{argument}: must be package.module:name, got {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists but imports one that does not
        raise ValueError(f"{argument}: there is no module {error.name!r} to import {name} from") from None
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{argument}: {module_name} has no {attribute!r}{hint}")
    return getattr(module, attribute)
