import ast
import importlib
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import keras
import pytest

import keras_bsnn

FOLDER = pathlib.Path(keras_bsnn.__file__).parent


def public_symbols():
    for module in pkgutil.walk_packages([str(FOLDER)], "keras_bsnn."):
        if module.name.startswith(
            ("keras_bsnn._", "keras_bsnn.ops", "keras_bsnn.layers.")
        ):
            continue
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", []):
            symbol = getattr(loaded, name)
            if callable(symbol):
                yield pytest.param(symbol, id=f"{module.name}.{name}")


@pytest.mark.parametrize("symbol", list(public_symbols()))
def test_public_symbols_are_documented(symbol):
    assert ">>> " in symbol.__doc__
    if hasattr(symbol, "get_config"):
        name = keras.saving.get_registered_name(symbol)
        assert name == f"keras_bsnn>{symbol.__name__}"


def public_modules():
    for module in pkgutil.walk_packages([str(FOLDER)], "keras_bsnn."):
        if "._" not in module.name:
            yield importlib.import_module(module.name)


def test_public_names_are_static():
    """A tool that only reads a public module knows its names."""
    counted = 0
    for module in public_modules():
        source = pathlib.Path(module.__file__).read_text()
        if not hasattr(module, "__all__"):
            continue
        (written,) = [
            ast.literal_eval(node.value)
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert module.__all__ == written, module.__name__
        counted += len(written)
    assert counted > 30


def test_no_name_hides_a_module():
    for module in public_modules():
        package, _, name = module.__name__.rpartition(".")
        assert getattr(sys.modules[package], name, module) is module


def functions_of(symbol):
    """A function itself; the methods of a class that are ours, and its properties."""
    if not inspect.isclass(symbol):
        return [symbol] if inspect.isroutine(symbol) else []
    found = []
    for owner in symbol.__mro__:
        for name, value in vars(owner).items():
            if owner.__module__.startswith("keras_bsnn") and (
                name == "__init__" or not name.startswith("_")
            ):
                value = getattr(value, "__func__", value)  # of a class method
                getters = (getattr(value, f, None) for f in ("fget", "func", "fset"))
                found += filter(inspect.isfunction, (value, *getters))
    return found


def lacking_types(function):
    """The arguments without a type, and `"return"`."""
    parameters = inspect.signature(function).parameters.values()
    unknown = [p.name for p in parameters if p.annotation is p.empty]
    if "return" not in function.__annotations__ and function.__name__ != "__init__":
        unknown.append("return")
    return [name for name in unknown if name not in ("self", "cls")]


def test_public_names_have_types():
    """Functions, constructors, methods and properties, for an editor and for mypy."""
    found = {
        f"{function.__module__}.{function.__qualname__}": lacking_types(function)
        for module in public_modules()
        for name in getattr(module, "__all__", [])
        for function in functions_of(getattr(module, name))
    }
    assert len(found) > 150
    assert {name: lacking for name, lacking in found.items() if lacking} == {}
    assert (FOLDER / "py.typed").exists()


@pytest.mark.slow
def test_import_is_quick():
    """At most a tenth of Keras' own time, about 0.2 s, and no package that it lacks."""
    code = """
import sys, time
start = time.process_time()
import keras
before = {m.split(".")[0] for m in sys.modules}
middle = time.process_time()
import keras_bsnn
print((time.process_time() - middle) / (middle - start))
after = {m.split(".")[0] for m in sys.modules}
print(sorted(after - before - set(sys.stdlib_module_names)))
"""
    command = [sys.executable, "-c", code]
    for _ in range(2):  # the second time only if something was in its way
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        share, added = run.stdout.splitlines()
        if float(share) < 0.1:
            break
    assert float(share) < 0.1
    assert added == "['keras_bsnn']"


FLOORS = (  # a room imports from floors below its own
    {"_errors", "_requirements", "_types", "_warnings"},
    {"_backend", "_batches", "_facts", "_model", "_parts", "_record"},
    {"_graph"},
    {"ops"},
    {"_steps", "manifolds"},
    {"_convolved", "activations", "constraints", "datasets", "depth", "initializers"},
    {"layers", "optimizers"},
    {"shaping", "stacking"},
    {"export", "models", "plots"},
    {"diagnostics"},
    {"recalibration"},
    {"callbacks", "report"},
    {"_train"},
    {"_demo", "__main__"},
)


def imported(file):
    """The modules that a file imports from, and the rooms of ours among them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            of_ours = (
                names if node.module == "keras_bsnn" else node.module.split(".")[1:2]
            )
            yield node.module, of_ours if node.module.startswith("keras_bsnn") else []


def test_arrows_point_one_way():
    """Rooms import from the floors below only, and nothing imports what is private."""
    floors = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    for file in FOLDER.rglob("*.py"):
        room = file.relative_to(FOLDER).parts[0].removesuffix(".py")
        for module, rooms in imported(file):
            assert "keras.src" not in module
            if room != "__init__":
                below = {r for r in rooms if r != room and floors[r] >= floors[room]}
                assert not below, f"{file} imports {below}"


def test_files_are_short():
    """One idea a file."""
    for file in FOLDER.rglob("*.py"):
        limit = 250 if file.parent.name == "depth" else 300
        assert len(file.read_text().splitlines()) <= limit, file


def test_version():
    assert keras_bsnn.__version__.count(".") == 2
