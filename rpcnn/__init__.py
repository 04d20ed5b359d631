"""RP R-CNN: multiple human parsing with custom C++/CUDA kernels.

``rpcnn.ops`` needs only torch; the names below load the rest when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"
__all__ = ["RPRCNN", "ParsingResult", "Predictor", "load_config"]

_HOMES = {
    "RPRCNN": "model",
    "Predictor": "inference.predictor",
    "load_config": "config",
    "ParsingResult": "inference.results",
}

if TYPE_CHECKING:  # for editors and type checkers, to which every name, misspelt ones too, would be Any
    from .config import load_config
    from .inference.predictor import Predictor
    from .inference.results import ParsingResult
    from .model import RPRCNN
else:

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        raise AttributeError(f"module 'rpcnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
