"""The synthetic experiment, small: what it measures is right, and what it leaves."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
from scripts import REPRODUCE, result

from keras_bsnn import _backend
from keras_bsnn.activations import GaussianPoincare

pytestmark = pytest.mark.slow

SCRIPT = REPRODUCE / "bsnn_synthetic.py"
SMALL = {"depth": 30, "units": 64, "samples": 40, "seed": 3}


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("bsnn_synthetic", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        specification.loader.exec_module(module)
    return module


def call(script, folder, **sizes):
    """Runs the script in this process; returns its record."""
    out, figure = folder / "record.json", folder / "figure.png"
    pairs = {**SMALL, **sizes, "out": out, "figure": figure}.items()
    options = [f"--{name}={value}" for name, value in pairs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bsnn_synthetic.py", *options])
        script.EXPERIMENT.main()
    assert figure.read_bytes().startswith(b"\x89PNG")
    return result(out)


@pytest.fixture(scope="module")
def records(script, tmp_path_factory):
    return call(script, tmp_path_factory.mktemp("synthetic"))


def test_normalized_activations_keep_the_signal(records):
    assert len({row["row"] for row in records}) == 6
    for found in records:
        name, form = found["row"], found["form"]
        assert SMALL.items() <= found.items()
        first, last = (found["summary"][f"h2_{end}"] for end in ("first", "last"))
        assert first == pytest.approx(1, abs=0.05)
        if form == "plain":
            assert last > 0.8 if name == "selu" else last < 0.1
            continue
        squares = found["curves"]["second_moment_slope"]
        assert np.mean(squares) == pytest.approx(1, abs=0.15)
        assert 0.1 < found["summary"]["y2_first"] < 10
        if found["length_slope"] < 0.8:  # near 1 the length does a random walk
            assert last == pytest.approx(1, abs=0.3)


def test_the_record_is_whole(records, script):
    layers = script.thinned(30)
    assert layers[0] == 1 and layers[-1] == 30 and len(layers) <= 21
    for found in records:
        assert found["form"] in script.LINES
        assert found["not_finite"] == 0
        assert set(found["summary"]) == set(script.COLUMNS)
        assert set(found["curves"]) == set(script.CURVES)
        assert all(len(curve) == len(layers) for curve in found["curves"].values())
        curves, summary = found["curves"], found["summary"]
        assert curves["second_moment_h"][-1] == summary["h2_last"]
        assert curves["norm_dW"][0] == summary["dW_first"]
        assert curves["second_moment_y"][0] == summary["y2_first"]
        seen = max(curves["norm_dW"]) / min(curves["norm_dW"])
        assert 1 <= seen <= summary["dW_ratio"] * 1.001


@pytest.mark.parametrize("form", ["plain", "paper's root", "stable root"])
@pytest.mark.parametrize("name", ["elu", "leaky_relu"])
def test_gradients_are_those_of_autodiff(script, name, form):
    weights, x, error = script.draw(depth=3, units=8, samples=5, seed=0)
    phi = script.forms(name)[form]
    found = script.measure(phi, weights, x, error)

    def loss(kernels):
        h = keras.ops.matmul(x, kernels[0])
        for kernel in kernels[1:]:
            h = keras.ops.matmul(phi(h), kernel)
        return keras.ops.mean(keras.ops.sum(error * h, axis=-1))

    with _backend.float64():
        kernels = [keras.ops.convert_to_tensor(w) for w in weights]
        expected = [np.linalg.norm(g) for g in _backend.gradients(loss, kernels)]
    np.testing.assert_allclose(found["norm_dW"], expected, rtol=1e-4)


def test_the_roots(script):
    for name in script.FUNCTIONS:
        phis = script.forms(name)
        paper = phis["paper's root"]
        stable = phis.get("stable root", paper)
        assert stable.length_slope <= min(paper.length_slope, 0.95)
        assert isinstance(stable, GaussianPoincare)
        assert stable.scale == paper.scale
    leaky = script.forms("leaky_relu")["plain"]
    assert float(leaky(keras.ops.convert_to_tensor(-1.0))) == pytest.approx(-0.01)


def test_what_is_not_finite_is_said(script, tmp_path):
    numbers = np.array([1.0, np.inf, np.nan, 0.0])
    curves = dict.fromkeys(script.CURVES, numbers)
    found = script.entry(None, curves, [1, 2, 3, 4])
    assert found["curves"]["norm_dW"] == [1, None, None, 0]
    assert found["summary"]["dW_ratio"] is None
    assert found["not_finite"] == 2 * len(curves)
    network = {"form": "plain", "depth": 4, **found}
    records = [{"row": name, **network} for name in script.FUNCTIONS]
    assert any("Not finite" in note for note in script.notes(records))
    script.plot(records, tmp_path / "figure.png")


@pytest.mark.parametrize("size", ["depth", "units", "samples"])
def test_sizes_are_checked(script, tmp_path, size):
    with pytest.raises(SystemExit):
        call(script, tmp_path, **{size: 0})


def test_one_layer(script, tmp_path, capsys):
    records = call(script, tmp_path, depth=1, units=4)
    printed = capsys.readouterr().out
    assert script.thinned(1) == [1]
    for found in records:
        assert f"{found['row']}, {found['form']}" in printed
        assert found["summary"]["dW_ratio"] == 1
