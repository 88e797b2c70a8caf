import warnings

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, drawn
from differentiated import compiled_gradients
from layer_checker import check_layer

from keras_bsnn import _backend
from keras_bsnn.initializers import DepthDecay, HaarOrthogonal
from keras_bsnn.layers import (
    BatchNormConv2D,
    BatchNormDense,
    DepthStack,
    OrthogonalConv2D,
)
from keras_bsnn.recalibration import recalibrate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "input_shape", "output_shape"),
    [
        ({"filters": 6, "activation": "tanh"}, (3, 2, 4), (3, 2, 6)),
        (
            {
                "filters": 8,
                "kernel_size": 4,
                "strides": 2,
                "groups": 2,
                "padding": "bounce",
                "kernel_constraint": "orthogonal",
                "kernel_initializer": HaarOrthogonal(seed=1),
                "kernel_regularizer": "l1",
                "gain": DepthDecay(0.5, 0.9),
                "shrinkage": 0.5,
                "momentum": 0.5,
            },
            (4, 2, 16),
            (2, 1, 8),
        ),
        (
            {
                "filters": 4,
                "kernel_size": 2,
                "activation": "gp_relu",
                "implementation": "conv",
                "affine": True,
                "center": False,
                "scale_by": "norm",
            },
            (3, 3, 4),
            (3, 3, 4),
        ),
    ],
)
def test_it_is_a_good_layer(arguments, input_shape, output_shape, tmp_path):
    check_layer(BatchNormConv2D, arguments, input_shape, output_shape, tmp_path)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_it_is_an_orthogonal_convolution_and_the_normalization_of_keras(
    training, affine
):
    x = drawn(9, 4, 3, 8) + 1
    ours = BatchNormConv2D(6, activation="tanh", affine=affine, momentum=0.9)
    conv = OrthogonalConv2D(6, use_bias=False)
    theirs = keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=affine, scale=affine
    )
    ours.build(x.shape), conv.build(x.shape), theirs.build((9, 4, 3, 6))
    for mine, other in zip(conv.kernels, ours.kernels, strict=True):
        mine.assign(other)
    if affine:
        for mine, other in ((ours.scale, theirs.gamma), (ours.offset, theirs.beta)):
            mine.assign(drawn(6)), other.assign(mine)
    for _ in range(3):
        found = ours(x, training=training)
        expected = keras.ops.tanh(theirs(conv(x), training=training))
        assert_allclose(found, expected, atol=1e-5)
    assert_allclose(ours.moving_mean, theirs.moving_mean, atol=1e-5)
    assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-4)


@pytest.mark.parametrize("scale_by", ["std", "norm"])
def test_of_one_tap_it_is_the_dense_layer_at_each_place(scale_by):
    x = drawn(9, 3, 2, 5)
    arguments = {"activation": "sin", "gain": 0.7, "shrinkage": 0.3}
    conv = BatchNormConv2D(4, 1, scale_by=scale_by, **arguments)
    dense = BatchNormDense(4, scale_by=scale_by, **arguments)
    conv.build(x.shape), dense.build(x.shape)
    dense.set_weights(conv.get_weights())
    for training in (True, False):
        y = dense(x, training=training)
        assert_allclose(conv(x, training=training), y, atol=1e-5)
    for ours, theirs in zip(conv.get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_channels_first(training):
    x = drawn(9, 4, 6, 8)
    arguments = {"activation": "tanh", "affine": True, "shrinkage": 0.3}
    last = BatchNormConv2D(6, 4, 2, **arguments)
    first = BatchNormConv2D(6, 4, 2, data_format="channels_first", **arguments)
    moved = np.moveaxis(x, -1, 1)
    last.build(x.shape), first.build(moved.shape)
    last.scale.assign(drawn(6)), last.offset.assign(drawn(6, seed=1))
    first.set_weights(last.get_weights())
    y = array(last(x, training=training))
    found = array(first(moved, training=training))
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), y, atol=1e-5)
    for ours, theirs in zip(first.get_weights(), last.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_as_a_convolution_of_keras():
    x = drawn(9, 4, 6, 8)
    shifts, conv = (
        BatchNormConv2D(6, 4, 2, implementation=name) for name in ("shifts", "conv")
    )
    shifts.build(x.shape), conv.build(x.shape)
    conv.set_weights(shifts.get_weights())
    y = shifts(x, training=True)
    assert_allclose(conv(x, training=True), y, atol=1e-5)


def test_statistics_are_those_of_each_channel_over_images_and_places():
    layer = BatchNormConv2D(8, epsilon=0, padding="bounce", gain=0.5, momentum=0)
    x = drawn(9, 4, 5, 8) + 2
    y = array(layer(x, training=True))
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), 0.5, rtol=1e-4)
    assert_allclose(layer(x[:2]), y[:2], atol=1e-5)
    layer.assert_orthogonal()


def test_a_stack_is_its_layers_with_their_statistics():
    block = BatchNormConv2D(8, activation="tanh", gain=DepthDecay(), momentum=0.5)
    stack, x = DepthStack(block, 3), drawn(9, 3, 4, 8)
    stack.build(x.shape)
    layers = [stack.layer_at(i) for i in range(3)]
    y, expected = stack(x, training=True), x
    for layer in layers:
        expected = layer(expected, training=True)
    assert_allclose(y, expected, atol=1e-5)
    for i, layer in enumerate(layers):
        for ours, theirs in zip(
            stack.layer_at(i).get_weights(), layer.get_weights(), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    gains = {w.name: array(w) for w in stack.weights}["gain"]
    np.testing.assert_allclose(gains, [1, 2**-0.4, 3**-0.4], rtol=1e-6)


def gradients(depth, images, filters=8, kernel_size=3, **arguments):
    """Norms of those of the kernels, of a loss that sees each output differently."""
    keras.utils.set_random_seed(0)
    block = BatchNormConv2D(filters, kernel_size, **arguments)
    stack, x = DepthStack(block, depth), drawn(images, 2, 2, filters)
    stack.build(x.shape)
    kernels = stack.trainable_variables
    target = drawn(*x.shape, seed=1)

    def loss(values):
        with keras.StatelessScope(zip(kernels, values, strict=True)):
            return keras.ops.mean(keras.ops.square(stack(x, training=True) - target))

    values = [_backend.read(kernel) for kernel in kernels]
    found = [array(g) for g in compiled_gradients(loss, values)]
    return np.sqrt(sum(np.square(g).sum(axis=(1, 2)) for g in found))


@pytest.mark.parametrize(
    ("images", "arguments"),
    [
        (24, {}),
        (3, {"shrinkage": 0.99}),
        (3, {"kernel_size": 1}),  # of 12 places
        (24, {"activation": "tanh", "gain": 0.3}),
    ],
)
def test_gradients_are_bounded_at_depth(images, arguments):
    norms = gradients(200, images, **arguments)
    assert np.all(np.isfinite(norms))
    assert norms[0] < 4 * norms[-1] and norms.max() < 4 * norms.min()


def test_gradients_grow_where_images_are_fewer_than_filters():
    """However many places they have."""
    with pytest.warns(UserWarning, match="batch of 3 samples .* width of 8 units"):
        norms = gradients(200, 3)
    assert norms[0] > 100 * norms[-1]


def test_it_warns_of_batches_that_are_too_small():
    x = drawn(7, 4, 4, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BatchNormConv2D(8, shrinkage=0.9)(x, training=True)
        BatchNormConv2D(8, 1)(x, training=True)
        BatchNormConv2D(8, 2, 2)(x[:2], training=True)
        BatchNormConv2D(7)(x, training=True)
        BatchNormConv2D(8)(x)
    first = BatchNormConv2D(4, 2, 2, data_format="channels_first")
    with pytest.warns(UserWarning, match="batch of 2 samples .* width of 4 units"):
        first(drawn(1, 8, 2, 4), training=True)
    with pytest.warns(UserWarning, match="batch of 7 samples .* width of 8 units"):
        BatchNormConv2D(8)(x, training=True)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_recalibrated_evaluation_is_training_on_all_of_the_data(data_format):
    shape = (3, 2, 8) if data_format == "channels_last" else (8, 3, 2)
    keras.utils.set_random_seed(0)
    arguments = {"data_format": data_format, "shrinkage": 0.2}
    block = BatchNormConv2D(8, activation="tanh", gain=0.4, **arguments)
    layers = [BatchNormConv2D(8, center=False, **arguments), DepthStack(block, 10)]
    model, x = keras.Sequential([keras.Input(shape), *layers]), drawn(40, *shape)
    expected = array(model(x, training=True))
    recalibrate(model, [x[:9], x[9:]])
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4)


def test_frozen_it_keeps_its_statistics():
    layer, x = BatchNormConv2D(8), drawn(9, 2, 2, 8)
    layer.build(x.shape)
    layer.trainable = False
    assert_allclose(layer(x, training=True), layer(x))
    assert_allclose(layer.moving_mean, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"filters": 0}, "`filters` must be an integer >= 1"),
        ({"kernel_size": 2, "strides": 3}, "`kernel_size`.*at least strides"),
        ({"padding": "valid"}, "`padding` must be one of"),
        ({"scale_by": "max"}, "`scale_by` must be one of"),
        ({"momentum": 1.0}, "`momentum` must be in"),
        ({"shrinkage": 2}, "`shrinkage` must be a number in"),
        ({"gain": "no such thing"}, "`gain` must be a number or"),
        ({"use_bias": True}, "use_bias"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        BatchNormConv2D(**{"filters": 8, **arguments})


def test_wrong_inputs():
    with pytest.raises(ValueError, match=r"floating point.*int32"):
        BatchNormConv2D(8)(np.ones((1, 4, 4, 8), "int32"))
    with pytest.raises(ValueError, match=r"at least 4 in each group.*Received: 3"):
        BatchNormConv2D(8)(drawn(1, 4, 4, 3))
    with pytest.raises(ValueError, match=r"`strides`.*divisors"):
        BatchNormConv2D(8, 2, 2)(drawn(1, 4, 5, 3))
