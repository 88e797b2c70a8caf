"""What a user is told who lacks a package, or has one that is too old."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from keras_bsnn._requirements import extra

ROOT = Path(__file__).parents[1]
HIDDEN = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {names!r} else super().find_spec(name, path, target)
known = importlib.machinery.PathFinder
sys.meta_path = [Finder if finder is known else finder for finder in sys.meta_path]
"""


def run(code, hidden=(), backend="tensorflow"):
    """Runs code where packages cannot be imported; its output or its last error."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", HIDDEN.format(names=hidden) + code],
        env=environment,
        capture_output=True,
        text=True,
    )
    return (found.stderr if found.returncode else found.stdout).strip().split("\n")[-1]


@pytest.mark.slow
def test_a_missing_backend_is_told_of():
    message = run("import keras_bsnn", hidden=["tensorflow"])
    assert "Keras is to run on tensorflow, which is not installed" in message
    assert (
        "pip install 'keras_bsnn[tensorflow]'" in message and "KERAS_BACKEND" in message
    )


@pytest.mark.slow
def test_an_old_keras_is_told_of():
    code = "import keras; keras.__version__ = '3.9.2'\nimport keras_bsnn"
    message = run(code)
    assert "needs Keras 3.10 or newer, and this is Keras 3.9.2" in message


def test_a_missing_package_of_an_extra_is_told_of():
    with pytest.raises(ModuleNotFoundError) as caught, extra("onnx"):
        import no_such_package  # noqa: F401
    assert str(caught.value) == (
        "no_such_package is not installed: pip install 'keras_bsnn[onnx]' installs it."
    )
    assert caught.value.name == "no_such_package"


USES = {
    "tensorflow_datasets": ("datasets", "keras_bsnn.datasets.load()"),
    "matplotlib": (
        "plots",
        "import io\nwith keras_bsnn.plots.figure(io.BytesIO()): pass",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("package", USES)
def test_each_use_says_which_extra_it_needs(package):
    name, use = USES[package]
    message = run(f"import keras_bsnn\n{use}", hidden=[package])
    assert f"{package} is not installed: pip install 'keras_bsnn[{name}]'" in message


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_jax_needs_no_tensorflow():
    code = """
import keras, keras_bsnn
from keras_bsnn import datasets, layers
model = keras.Sequential([keras.Input((20, 2)), layers.ROAF(8, alpha=0.9)])
model.add(keras.layers.Dense(1))
model.compile("adam", "mse")
model.fit(datasets.adding_problem(20, 4), steps_per_epoch=2, shuffle=False, verbose=0)
x, y = next(iter(datasets.copy_memory(10, 3)))
print(x.shape, y.shape)
"""
    assert run(code, ["tensorflow"], "jax") == "(3, 30, 10) (3, 30)"
