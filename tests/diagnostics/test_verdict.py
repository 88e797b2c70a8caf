"""The verdict on networks of 200 layers of which it is known how they fare."""

import re
import time

import keras
import numpy as np
import pytest

from keras_bsnn import diagnostics, models

DEPTH, WIDTH = 200, 64
OURS = ("bsnn_mlp", "batchnorm_mlp", "roaf_mlp")


def dense(activation, initializer):
    return [
        keras.layers.Dense(WIDTH, activation, kernel_initializer=initializer)
        for _ in range(DEPTH)
    ]


def normalized():
    for _ in range(DEPTH):
        yield keras.layers.Dense(WIDTH, kernel_initializer="random_normal")
        yield keras.layers.BatchNormalization()
        yield keras.layers.ReLU()


def residual():
    x = inputs = keras.Input((WIDTH,))
    for layer in dense("relu", "he_normal"):
        x = keras.layers.add([x, layer(x)])
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def chain(layers):
    return keras.Sequential([keras.Input((WIDTH,)), *layers, keras.layers.Dense(10)])


def report(model, samples=128):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, WIDTH)).astype("float32")
    y = rng.integers(0, 10, samples)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return diagnostics.signal_report(model, x, y)


KNOWN = {
    # A ReLU halves the second moment, and Glorot's law does not make up for it.
    "glorot relu": (
        lambda: chain(dense("relu", "glorot_uniform")),
        r"^Gradients fall by 10\^(2[7-9]|3[0-4]) between layer 201 and layer 1\. "
        r"Outputs fall by 10\^(2[7-9]|3[0-5]) between layer 1 and layer 201\. Samples",
    ),
    # He's law does; but the cosine of two samples tends to 1.
    "he relu": (
        lambda: chain(dense("relu", "he_normal")),
        r"Samples look alike from layer \d+ \(.*OrthogonalDense\(units, 'gp_tanh'\)",
    ),
    # The squared slope of SELU has a mean of 1.07, and sqrt(1.07^200) is 10^2.9.
    "selu": (
        lambda: chain(dense("selu", "lecun_normal")),
        r"^Gradients grow by 10\^[2-4] between layer 201 and layer 1\. Try",
    ),
    # The edge of chaos keeps norms, but singular values spread.
    "glorot tanh": (
        lambda: chain(dense("tanh", "glorot_uniform")),
        r"^Samples are in a few directions only from layer \d+",
    ),
    # Yang et al., arXiv 1902.08129: gradients grow in each layer.
    "batch norm": (
        lambda: chain(normalized()),
        r"^Gradients grow by 10\^1[5-9] between layer 601 and layer 1\. .*BatchNormDen",
    ),
    # Each sum doubles the second moment.
    "residual": (residual, r"^Outputs are not finite from layer .*ROAFDense"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_does_not_get_through(name):
    keras.utils.set_random_seed(0)
    build, pattern = KNOWN[name]
    verdict = report(build()).verdict
    assert re.search(pattern, verdict), verdict


@pytest.mark.parametrize("name", OURS)
def test_what_gets_through(name):
    model = getattr(models, name)(DEPTH, WIDTH, input_shape=(WIDTH,), seed=0)
    found = report(model)
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


def test_ten_thousand_layers_in_seconds():
    model = models.bsnn_mlp(10_000, WIDTH, input_shape=(WIDTH,), seed=0)
    start = time.perf_counter()
    assert report(model).verdict.startswith("The signal gets through 10006 layers")
    assert time.perf_counter() - start < 120  # 30 on an idle machine
