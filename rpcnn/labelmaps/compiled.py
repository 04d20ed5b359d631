"""`compiled.core`: rpcnn._labelmaps, or None where it is not built and numpy and Pillow do its work."""

try:
    from rpcnn import _labelmaps as core
except ImportError:  # built with RPCNN_BUILD=none, or not built
    core = None
