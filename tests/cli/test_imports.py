"""Importing objects by dotted name, and the error messages."""

import ast
import collections
import inspect

import pytest

import rpcnn
from rpcnn.config.imports import import_object


def test_the_public_names_are_listed_and_there():
    assert set(rpcnn.__all__) <= set(dir(rpcnn))
    assert all(getattr(rpcnn, name).__name__ == name for name in rpcnn.__all__)


def test_type_checkers_see_the_public_names():
    """They follow no __getattr__: the block TYPE_CHECKING imports each name from where it is loaded."""
    blocks = [node for node in ast.walk(ast.parse(inspect.getsource(rpcnn))) if isinstance(node, ast.If)]
    (block,) = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == rpcnn._HOMES and seen.keys() == set(rpcnn.__all__)


def test_a_name_gives_the_object_itself():
    assert import_object("collections:OrderedDict", "thing") is collections.OrderedDict


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("collections:OrderDict", "thing: collections has no 'OrderDict'; did you mean 'OrderedDict'"),
        ("no_such_package.part:x", "thing: there is no module 'no_such_package' to import"),
        ("collections.no_such_part:x", r"thing: there is no module 'collections\.no_such_part'"),
        ("collections:", r"thing: must be package\.module:name, got 'collections:'"),
        ("a b:c", r"thing: must be package\.module:name"),
        ("a:b:c", r"thing: must be package\.module:name"),
    ],
)
def test_an_unknown_name_raises_and_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        import_object(name, "thing")


def test_an_import_error_inside_the_module_is_shown(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        import_object("needs_more:x", "thing")
