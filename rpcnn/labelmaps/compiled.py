"""`compiled.core` is rpcnn._labelmaps, or None if it is not built; numpy and Pillow are used then."""

try:
    from rpcnn import _labelmaps as core
except ImportError:  # built with RPCNN_BUILD=none, or not built
    core = None
