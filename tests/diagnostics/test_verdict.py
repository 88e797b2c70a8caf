"""The verdict on networks of 200 layers of which it is known how they fare."""

import importlib
import re
import time

import keras
import numpy as np
import pytest
from scripts import REPRODUCE

from keras_bsnn import datasets, diagnostics, models

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
