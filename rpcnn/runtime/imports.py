"""Objects of other people's modules, by name."""

import difflib
import importlib


def import_object(name: str, argument: str):
    """The object that "package.module:object" names.

    Args:
        argument: what the name was given for; messages begin with it.

    Raises:
        ValueError: not of this form, no such module, or nothing of this name in it.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise ValueError(f"{argument}: must be package.module:name, got {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that the module itself imports
        raise ValueError(f"{argument}: there is no module {error.name!r} to import {name} from") from None
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{argument}: {module_name} has no {attribute!r}{hint}")
    return getattr(module, attribute)
