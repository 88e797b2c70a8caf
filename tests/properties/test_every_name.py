"""Every public name has a property test: a new one without fails here."""

import ast
import importlib
import inspect
import pathlib
import pkgutil

import keras_bsnn
from keras_bsnn import ops

TESTS = pathlib.Path(__file__).parents[1]


def public_names():
    """As `module.name`, the way in which the tests write them."""
    for module in pkgutil.walk_packages(keras_bsnn.__path__, "keras_bsnn."):
        if not module.name.startswith(("keras_bsnn._", "keras_bsnn.ops")):
            loaded = importlib.import_module(module.name)
            for name in getattr(loaded, "__all__", []):
                symbol = getattr(loaded, name)
                if callable(symbol):
                    yield f"{module.name.split('.')[1]}.{name}"
    for name in ops.__all__:  # functions that show how they are called
        for symbol in vars(getattr(ops, name)).values():
            is_own = getattr(symbol, "__module__", None) == f"keras_bsnn.ops.{name}"
            is_shown = inspect.isfunction(symbol) and ">>> " in (symbol.__doc__ or "")
            if is_own and is_shown:
                yield f"{name}.{symbol.__name__}"


def marked_names():
    """What `property_of` is called with."""
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "property_of":
                yield from map(ast.unparse, node.args)


def test_every_public_name_has_a_property():
    names, marked = set(public_names()), set(marked_names())
    assert len(names) > 50 and "orthogonal.qr" in names
    assert names - marked == set(), "these have none"
    assert marked - names == set(), "these are not public"
