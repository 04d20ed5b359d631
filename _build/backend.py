"""PEP 517 backend: setuptools, but the kernels are compiled against the torch of the target environment.

pip's build isolation hides the target environment, so ``requires = ["torch"]`` would install a second torch and compile
against it. This backend adds the environment's torch to the path, and requires torch only if there is none.
RPCNN_BUILD=none compiles nothing and requires nothing.
"""

import importlib.util
import os
import site
import sys

from setuptools import build_meta as _setuptools
from setuptools.build_meta import *  # noqa: F403  (the hooks that need no change)


def _expose_torch() -> bool:
    """Append the site-packages folder with torch to the path, last, so that all other packages stay isolated."""
    if importlib.util.find_spec("torch"):
        return True
    for folder in [*site.getsitepackages(), site.getusersitepackages()]:
        if os.path.isfile(os.path.join(folder, "torch", "version.py")):
            sys.path.append(folder)
            importlib.invalidate_caches()
            return True
    return False


def _with_torch(requires):
    if os.environ.get("RPCNN_BUILD") == "none" or _expose_torch():
        return requires
    if "UV_INTERNAL__BUILD_DIR" in os.environ:
        # uv builds in an environment of its own that does not tell the one it builds for.
        sys.exit(
            "rpcnn: uv hides the environment's torch from the build and would download another. Install with\n"
            "  uv pip install setuptools ninja pybind11 && uv pip install --no-build-isolation -e .\n"
            "or without kernels: RPCNN_BUILD=none"
        )
    return [*requires, "torch>=2.11", "numpy"]


def get_requires_for_build_wheel(config_settings=None):
    return _with_torch(_setuptools.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings=None):
    return _with_torch(_setuptools.get_requires_for_build_editable(config_settings))


def build_wheel(*args, **kwargs):
    _expose_torch()
    return _setuptools.build_wheel(*args, **kwargs)


def build_editable(*args, **kwargs):
    _expose_torch()
    return _setuptools.build_editable(*args, **kwargs)
