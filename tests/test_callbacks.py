import keras
import numpy as np
import pytest

from keras_bsnn.callbacks import RecalibrateBatchNorm, Retract
from keras_bsnn.constraints import Orthogonal, orthogonal_kernels
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.models import batchnorm_mlp
from keras_bsnn.ops import orthogonal


def largest_error(model):
    return max(
        float(keras.ops.max(orthogonal.orthogonality_error(kernel)))
        for kernel in orthogonal_kernels(model)
    )


def model_of_both():
    """An orthogonal layer that is not square, a stack, and a layer of Keras."""
    constraint = Orthogonal(tolerance=0.1)
    return keras.Sequential(
        [
            keras.Input((6,)),
            OrthogonalDense(8, kernel_constraint=constraint),
            DepthStack(OrthogonalDense(8, kernel_constraint=constraint), 100),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_kernels_are_exact_at_the_end(jit_compile):
    model = model_of_both()
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6)).astype("float32")
    y = rng.normal(size=(32, 3)).astype("float32")
    model.fit(x, y, epochs=3, verbose=0)
    assert 1e-5 < largest_error(model) < 0.1
    model.fit(x, y, verbose=0, callbacks=[Retract()])
    assert len(list(orthogonal_kernels(model))) == 2
    assert largest_error(model) < 1e-6


def test_any_matrix_becomes_the_nearest_orthogonal_one():
    layer = OrthogonalDense(5)
    model = keras.Sequential([keras.Input((5,)), layer])
    model.compile("sgd", "mse")
    kernel = np.random.default_rng(0).normal(size=(5, 5))
    layer.kernel.assign(kernel)
    callback = Retract()
    callback.set_model(model)
    callback.on_train_end()
    u, _, v = np.linalg.svd(kernel)
    np.testing.assert_allclose(layer.get_weights()[0], u @ v, atol=1e-5)


def test_recalibrated_before_validation_and_at_the_end():
    """Evaluation, also that within `fit`, has the statistics of the given data."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 12)).astype("float32")
    y = x[:, :10] @ np.ones((10, 1), "float32")
    model = batchnorm_mlp(50, 10, None, 1, input_shape=(12,))
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=True)
    settings = {"batch_size": 64, "epochs": 3, "verbose": 0}
    settings["callbacks"] = [RecalibrateBatchNorm(x)]
    found = model.fit(x, y, validation_data=(x, y), **settings).history["val_loss"]
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), found[-1], rtol=1e-5)
    with_all_of_the_data = np.mean(np.square(model(x, training=True) - y))
    np.testing.assert_allclose(found[-1], with_all_of_the_data, rtol=1e-4)
