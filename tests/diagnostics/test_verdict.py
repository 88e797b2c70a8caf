"""The verdict on networks of 200 layers of which it is known how they fare."""

import importlib
import re
import time

import keras
import numpy as np
import pytest
from scripts import REPRODUCE

from keras_bsnn import datasets, diagnostics, layers, models
from keras_bsnn.diagnostics import _hints
from keras_bsnn.layers import DepthStack

DEPTH, WIDTH = 200, 64


@pytest.fixture
def report_of(monkeypatch):
    """Of a network of the README's first picture."""
    monkeypatch.syspath_prepend(REPRODUCE)
    script = importlib.import_module("side_by_side")
    batch = next(iter(datasets.load("digits", "train", script.BATCH, seed=0)))
    return lambda name: script.report_of(name, (DEPTH, WIDTH, (8, 8, 1), 10), *batch)


KNOWN = {
    # A ReLU halves the second moment, and Glorot's law does not make up for it.
    "ReLU, Glorot": (
        r"^Vanishing gradients: they fall by a factor of 10\^(2[7-9]|3[0-4]) from "
        r"layer 202 to layer 1\. Vanishing outputs: they fall by a factor of "
        r"10\^(2[7-9]|3[0-5]) from layer 1 to layer 202\. Rank collapse: all samples"
    ),
    # He's law does; but the cosine of two samples tends to 1.
    "ReLU, He": (
        r"Rank collapse: all samples point in nearly the same direction from layer \d+ "
        r"\(.*OrthogonalDense\(units, 'gp_tanh'\)"
    ),
    # The squared slope of SELU has a mean of 1.07, and sqrt(1.07^200) is 10^2.9.
    "SELU, LeCun": (
        r"^Exploding gradients: they grow by a factor of 10\^[2-4] from layer 202 to "
        r"layer 1\. Try"
    ),
    # The edge of chaos keeps norms, but singular values spread.
    "tanh, Glorot": r"^Rank collapse: the samples span few directions from layer \d+",
    # Yang et al., arXiv 1902.08129: gradients grow in each layer.
    "batch norm, Gaussian": (
        r"^Exploding gradients: they grow by a factor of 10\^1[5-9] from layer 602 to "
        r"layer 1\. .*BatchNormDense"
    ),
    # Each sum doubles the second moment.
    "residual, He": r"^Outputs are not finite from layer .*ROAFDense",
}
OURS = ("ours: bsnn_mlp", "ours: batchnorm_mlp", "ours: roaf_mlp")


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_what_does_not_get_through(report_of, name):
    verdict = report_of(name).verdict
    assert re.search(KNOWN[name], verdict), verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_what_gets_through(report_of, name):
    found = report_of(name)
    assert found.verdict.startswith("The signal gets through")
    ratio = found.gradient[0] / found.gradient[-1]
    assert f"are {ratio:.2g} times those" in found.verdict and 0.1 < ratio < 10


def test_no_gradient_at_all():
    """Where outputs are the targets already."""
    layer = keras.layers.Dense(3, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile("sgd", "mse")
    found = diagnostics.signal_report(model, np.ones((2, 4)), np.zeros((2, 3)))
    assert found.verdict.startswith("Gradients are zero at layer 1.")


@pytest.mark.slow
def test_ten_thousand_layers_in_seconds():
    model = models.bsnn_mlp(10_000, 32, input_shape=(32,), seed=0)
    model.compile(loss="mse")
    x, y = np.random.default_rng(0).normal(size=(2, 64, 32))
    start = time.perf_counter()
    found = diagnostics.signal_report(model, x, y[:, :10])
    assert found.verdict.startswith("The signal gets through 10006 layers")
    assert time.perf_counter() - start < 60  # 3 on an idle machine, more on JAX


def report_on_noise(model, size):
    x = np.random.default_rng(0).normal(size=(16, *size, 8)).astype("float32")
    y = np.zeros((16, *model.output_shape[1:]))
    return diagnostics.signal_report(model, x, y, loss="mse")


@pytest.mark.parametrize("axes", [1, 2])
def test_convolutions_are_told_of_convolutions(axes):
    advice = advice_on(axes, keras.layers.Identity())
    assert f"keras_bsnn.layers.OrthogonalConv{axes}D(filters" in advice
    assert ("keras_bsnn.models.bsnn_cnn" in advice) == (axes == 2)
    assert "Dense" not in advice


def test_convolutions_with_normalization_or_sums():
    """There is a layer of each for images, and neither for sequences."""
    normalization, block = keras.layers.BatchNormalization, "keras_bsnn.layers."
    assert f"{block}BatchNormConv2D, whose" in advice_on(2, normalization())
    assert f"{block}OrthogonalConv1D(filters" in advice_on(1, normalization())
    inputs = keras.Input((6, 5, 8))
    twice = keras.Model(inputs, keras.layers.add([inputs, inputs]))
    assert f"{block}ROAFConv2D(filters, alpha=1 - 1 / depth)" in advice_on(2, twice)


def advice_on(axes, first):
    """On plain convolutions behind another layer."""
    size, kind = (6, 5)[:axes], f"Conv{axes}D"
    plain = getattr(keras.layers, kind)(8, 3, padding="same", activation="relu")
    layers = [first, DepthStack(plain, 40), keras.layers.Flatten()]
    layers += [keras.layers.Dense(3)]
    verdict = report_on_noise(of(*layers, shape=(*size, 8)), size).verdict
    return verdict.split("Try")[1]


def of(*layers, shape):
    return keras.Sequential([keras.Input(shape), *layers])


def test_few_convolutions_before_many_dense_layers():
    first = keras.layers.Conv2D(8, 3)
    deep = DepthStack(keras.layers.Dense(24, "relu"), 60)
    model = of(first, keras.layers.Flatten(), deep, shape=(5, 3, 8))
    assert "OrthogonalDense(units, 'gp_tanh')" in report_on_noise(model, (5, 3)).verdict


def test_deep_convolutions_that_lose_their_edges():
    def hints(depth, **arguments):
        block = layers.OrthogonalConv2D(8, activation="gp_tanh", **arguments)
        model = of(DepthStack(block, depth), shape=(4, 5, 8))
        return [*_hints.hints(model, np.zeros((1, 4, 5, 8)))]

    (hint,) = hints(20, padding="same")
    assert hint.startswith("20 orthogonal convolutions have padding='same'")
    assert "'circular' or 'bounce'" in hint
    for arguments in ({}, {"padding": "bounce"}, {"padding": "same", "kernel_size": 1}):
        assert hints(20, **arguments) == []
    assert hints(3, padding="same") == []
