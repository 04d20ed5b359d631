"""`compiled.core` is rpcnn._labelmaps, or None if it is not built; numpy and Pillow are used then."""

from typing import Any

core: Any
try:
    from rpcnn import _labelmaps as core  # type: ignore[attr-defined, no-redef]
except ImportError:  # built with RPCNN_BUILD=none, or not built
    core = None
