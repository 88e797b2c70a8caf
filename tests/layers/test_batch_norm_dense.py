import keras
import numpy as np
import pytest
from layer_checker import check_layer

from keras_bsnn.initializers import DepthDecay, HaarOrthogonal
from keras_bsnn.layers import BatchNormDense, DepthStack
from keras_bsnn.ops import orthogonal

rng = np.random.default_rng(0)


def batch(samples=50, features=8):
    mixed = rng.normal(size=(samples, features)) @ rng.normal(size=(features, features))
    return (mixed + rng.normal(size=features)).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "input_shape", "output_shape"),
    [
        ({"units": 6, "activation": "tanh"}, (6,), (6,)),
        ({"units": 3, "center": False, "scale_by": "norm", "epsilon": 0}, (8,), (3,)),
        ({"units": 9, "activation": "gp_relu", "affine": True}, (2, 4), (2, 9)),
        (
            {
                "units": 5,
                "kernel_constraint": "orthogonal",
                "kernel_initializer": HaarOrthogonal(seed=1),
                "kernel_regularizer": "l1",
                "gain": DepthDecay(0.5, 0.9),
                "shrinkage": 0.5,
                "momentum": 0.5,
            },
            (5,),
            (5,),
        ),
    ],
)
def test_it_is_a_good_layer(arguments, input_shape, output_shape, tmp_path):
    check_layer(BatchNormDense, arguments, input_shape, output_shape, tmp_path)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_usual_form_is_that_of_keras(training, affine):
    """Dense and BatchNormalization, with their moving averages."""
    x = batch()
    ours = BatchNormDense(8, "tanh", affine=affine, momentum=0.9)
    dense = keras.layers.Dense(8, use_bias=False)
    theirs = keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=affine, scale=affine
    )
    ours.build(x.shape), dense.build(x.shape), theirs.build(x.shape)
    dense.kernel.assign(ours.kernel)
    if affine:
        for mine, other in ((ours.scale, theirs.gamma), (ours.offset, theirs.beta)):
            mine.assign(rng.normal(size=8)), other.assign(mine)
    for _ in range(3):
        found = ours(x, training=training)
        expected = keras.ops.tanh(theirs(dense(x), training=training))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, atol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-4)


def test_the_form_of_the_theory():
    x = batch()
    layer = BatchNormDense(8, center=False, scale_by="norm", epsilon=0)
    y = np.asarray(layer(x, training=True))
    projected = x @ np.asarray(layer.kernel)
    np.testing.assert_allclose(
        y, projected / np.linalg.norm(projected, axis=0), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(y, axis=0), 1, atol=1e-6)
    # In evaluation, whatever the batch, of the size of those in training.
    layer.moving_variance.assign(np.square(projected).mean(axis=0))
    np.testing.assert_allclose(layer(x[:7]), y[:7], atol=1e-6)


def test_a_feature_without_variance_is_zero_and_so_is_its_gradient():
    layer = BatchNormDense(4, epsilon=0)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile("sgd", "mse")
    model.fit(np.zeros((8, 4), "float32"), np.ones((8, 4)), verbose=0)
    np.testing.assert_allclose(layer(np.zeros((8, 4)), training=True), 0)
    assert np.all(np.isfinite(layer.kernel))


def test_shrinkage_takes_the_mean_variance():
    x = batch()
    layer = BatchNormDense(8, center=False, epsilon=0, shrinkage=1.0)
    y = np.asarray(layer(x, training=True))
    projected = x @ np.asarray(layer.kernel)
    expected = projected / np.sqrt(np.mean(np.square(projected)))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


def test_the_gain_is_inside_the_activation():
    x = batch()
    plain, gained = BatchNormDense(8), BatchNormDense(8, "tanh", gain=0.3)
    plain.build(x.shape), gained.build(x.shape)
    gained.set_weights(plain.get_weights())
    expected = np.tanh(0.3 * np.asarray(plain(x, training=True)))
    np.testing.assert_allclose(gained(x, training=True), expected, atol=1e-6)


def test_gains_and_statistics_of_a_stack_are_those_of_its_layers():
    block = BatchNormDense(8, "tanh", gain=DepthDecay(), momentum=0.5)
    stack = DepthStack(block, 5)
    x = batch()
    y = stack(x, training=True)
    weights = {w.name: np.asarray(w) for w in stack.weights}
    np.testing.assert_allclose(weights["gain"], np.arange(1, 6.0) ** -0.4, rtol=1e-6)
    assert weights["moving_mean"].shape == (5, 8)
    assert {w.name for w in stack.trainable_weights} == {"kernel"}
    expected = x
    for i in range(5):
        layer = BatchNormDense(8, "tanh", gain=float(weights["gain"][i]), momentum=0.5)
        layer.build(x.shape)
        layer.kernel.assign(weights["kernel"][i])
        expected = layer(expected, training=True)
        for name in ("moving_mean", "moving_variance"):
            found = weights[name][i]
            np.testing.assert_allclose(
                found, getattr(layer, name), rtol=1e-4, atol=1e-5
            )
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_ten_thousand_layers(dtype):
    """Features keep variance 1, and the gradient its size, in a batch that is whole."""
    keras.utils.set_random_seed(0)
    units, depth = 8, 10_000
    stack = DepthStack(BatchNormDense(units, dtype=dtype), depth)
    model = keras.Sequential([keras.Input((units,)), stack, keras.layers.Dense(1)])
    x = rng.normal(size=(64, units)).astype("float32")
    y = np.asarray(stack(x, training=True)).astype("float32")
    np.testing.assert_allclose(y.std(axis=0), 1, atol=2e-2)
    before = [np.asarray(w) for w in stack.trainable_weights]
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=True)
    model.fit(x, x[:, :1], batch_size=64, verbose=0)
    (steps,) = (
        np.asarray(w) - b for w, b in zip(stack.trainable_weights, before, strict=True)
    )
    norms = np.linalg.norm(steps, axis=(1, 2))
    assert np.all(np.isfinite(norms)) and norms.max() < 10 * np.median(norms)
    assert norms[:100].mean() < 10 * norms[-100:].mean()


def test_frozen_it_keeps_its_statistics():
    layer = BatchNormDense(8)
    layer.build((None, 8))
    layer.trainable = False
    x = batch()
    np.testing.assert_array_equal(layer(x, training=True), layer(x))
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(8))


def test_its_kernel_is_orthogonal():
    layer = BatchNormDense(8)
    layer.build((None, 8))
    assert float(orthogonal.orthogonality_error(layer.kernel)) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"units": 0}, "`units` must be an integer >= 1"),
        ({"units": 4, "scale_by": "max"}, "`scale_by` must be one of"),
        ({"units": 4, "momentum": 1.0}, "`momentum` must be in"),
        ({"units": 4, "epsilon": -1}, "`epsilon` must be a number >= 0"),
        ({"units": 4, "gain": "no such thing"}, "`gain` must be a number or"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        BatchNormDense(**arguments)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow"
)
def test_replicas_have_the_same_statistics(replicas):
    """The mean of what each has seen; Keras' BatchNormalization lets them differ."""
    with replicas.scope():
        model = keras.Sequential([keras.Input((6,)), BatchNormDense(4)])
        model.compile("sgd", "mse")
    before = model.layers[0].get_weights()[1:]
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    model.fit(x, np.zeros((32, 4)), batch_size=16, verbose=0)
    statistics = model.layers[0].non_trainable_variables
    for variable, start in zip(statistics, before, strict=True):
        first, second = map(np.asarray, variable.value.values)
        np.testing.assert_array_equal(first, second)
        assert np.any(first != start)
