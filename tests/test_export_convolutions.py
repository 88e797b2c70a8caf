"""Files of models of convolutions, run in their own runtimes, for any batch size."""

import functools

import keras
import numpy as np
import pytest
from runtimes import run_litert, run_onnx

from keras_bsnn import export, models
from keras_bsnn.layers import (
    DepthStack,
    OrthogonalConv1D,
    OrthogonalConv2D,
    OrthogonalConv2DTranspose,
)
from keras_bsnn.optimizers import StiefelMuon

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow writes these files"
)


def network():
    stack = DepthStack(OrthogonalConv2D(16, activation="gp_tanh"), 5)
    head = [keras.layers.Flatten(), keras.layers.Dense(10)]
    return sequential((8, 8, 1), OrthogonalConv2D(16, 2, strides=2), stack, *head)


def sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def stack(**arguments):
    return DepthStack(OrthogonalConv2D(8, activation="gp_tanh", **arguments), 2)


def trained(make, optimizer):
    """A network for digits, after a few steps."""
    model = make(5, 8, input_shape=(8, 8, 1), seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    x = np.random.default_rng(1).normal(size=(96, 8, 8, 1)).astype("float32")
    model.fit(x, np.arange(96) % 10, verbose=0)
    return model


NETWORKS = {
    "bsnn_cnn": lambda: trained(models.bsnn_cnn, StiefelMuon(0.1)),
    "batchnorm_cnn": lambda: trained(models.batchnorm_cnn, StiefelMuon(0.05)),
    "roaf_cnn": lambda: trained(models.roaf_cnn, keras.optimizers.Adam(0.01)),
}
MODELS = {
    **NETWORKS,
    "network": network,
    "bounce": lambda: sequential((4, 6, 8), stack(padding="bounce")),
    "same": lambda: sequential((4, 6, 8), stack(padding="same")),
    "conv": lambda: sequential((4, 6, 8), stack(implementation="conv")),
    "first": lambda: sequential((8, 4, 6), stack(data_format="channels_first")),
    "alone": lambda: sequential(
        (4, 6, 8),
        OrthogonalConv2D(8, groups=2, dilation_rate=2, activation="gp_gelu"),
        OrthogonalConv2D(9, 4, 2, padding="same"),
        OrthogonalConv2DTranspose(8, 4, 2),
    ),
    "sequences": lambda: sequential(
        (6, 8), DepthStack(OrthogonalConv1D(8, 5, activation="gp_tanh"), 2)
    ),
    "any size": lambda: sequential((None, None, 8), stack()),
}


def run_saved_model(path, x):
    import tensorflow as tf

    served = tf.saved_model.load(path)
    return np.asarray(served.serve(x))


FORMATS = {
    "saved_model": (export.saved_model, run_saved_model),
    "tflite": (export.litert, run_litert),
    "onnx": (export.onnx, run_onnx),
}


@functools.cache
def made(name):
    """A model, samples, and what it makes of them."""
    model = MODELS[name]()
    rng = np.random.default_rng(0)
    weights = model.get_weights()
    near = [w + 1e-5 * rng.normal(size=w.shape).astype("float32") for w in weights]
    model.set_weights(near if name not in NETWORKS else weights)
    shape = [n or 5 for n in model.input_shape[1:]]
    x = rng.normal(size=(7, *shape)).astype("float32")
    return model, x, keras.ops.convert_to_numpy(model(x))


def check(model, x, expected, format, path):
    write, run = FORMATS[format]
    write(model, path)
    assert np.std(expected) > 1e-3
    for rows in (1, len(x)):
        np.testing.assert_allclose(run(path, x[:rows]), expected[:rows], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_predictions(name, format, tmp_path):
    check(*made(name), format, tmp_path / f"model.{format}")


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", [*NETWORKS, "network", "sequences"])
def test_of_plain_layers(name, format, tmp_path):
    model, x, expected = made(name)
    check(export.to_keras(model), x, expected, format, tmp_path / f"plain.{format}")


def operator_norm(layer, shape):
    """Of the matrix whose rows are responses to single pixels."""
    size = int(np.prod(shape))
    response = keras.ops.convert_to_numpy(layer(np.eye(size).reshape(size, *shape)))
    return np.linalg.norm(response.reshape(size, -1), 2)


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["circular", "bounce", "same"])
def test_a_certificate_bounds_the_norm_of_a_convolution(padding, tmp_path):
    """Alone, of groups, and in a stack, by the product of its two kernels."""
    kwargs = {"padding": padding, "use_bias": False}
    alone = OrthogonalConv2D(16, 4, 2, groups=2, **kwargs)
    deep = DepthStack(OrthogonalConv2D(16, **kwargs), 3)
    model = sequential((4, 6, 16), alone, deep)
    scale = np.float32(1 + 2e-5)
    model.set_weights([scale * w for w in model.get_weights()])
    export.saved_model(model, tmp_path / "served")
    kernels = export.verify(tmp_path / "served")["kernels"]
    assert [k["shape"] for k in kernels] == [
        [2, 8, 8],
        [2, 32, 8],
        [3, 16, 16],
        [3, 16, 16],
    ]
    assert all(k["orthogonal"] and k["orthogonality_error"] < 1e-4 for k in kernels)
    for kernel in kernels:
        assert kernel["largest_singular_value"] == pytest.approx(scale, abs=1e-6)
    bound = scale**2
    norms = [operator_norm(alone, (4, 6, 16))]
    norms += [operator_norm(layer, (2, 3, 16)) for layer in deep.each_layer()]
    for norm in norms:
        assert norm < bound + 1e-6
        assert padding == "same" or norm == pytest.approx(bound, abs=1e-6)


def test_shapes_that_cannot_be_written(tmp_path):
    model = sequential((None, None, 8), OrthogonalConv2D(8))
    with pytest.raises(ValueError, match=r"known size, such as keras\.Input"):
        export.onnx(model, tmp_path / "model.onnx")
    assert [*tmp_path.iterdir()] == []
