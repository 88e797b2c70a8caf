"""Of every layer, for arguments and inputs that are drawn."""

import json

import keras
import numpy as np
from backends import HAS_FLOAT64
from catalogue import BLOCKS
from draws import (
    IS_JAX,
    array,
    dtype_of,
    normal,
    property_of,
    rarely,
    seeds,
)
from hypothesis import example, given
from hypothesis import strategies as st

from keras_bsnn import layers, recalibration
from keras_bsnn.layers import _filters

POLICIES = ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16"]
POLICIES += ["float64"] * HAS_FLOAT64
units = st.sampled_from([4]) if IS_JAX else st.integers(1, 5)
activations = st.sampled_from([None, "tanh", "relu", "gp_tanh", "gp_relu", "softmax"])
policies = st.sampled_from(POLICIES)
flags = st.booleans()
filters = st.sampled_from([*_filters.FILTERS])
alphas = st.floats(0, 1)


def arguments(**kwargs):
    return st.fixed_dictionaries(
        {"activation": activations, "dtype": policies, **kwargs}
    )


ARGUMENTS = {
    layers.OrthogonalDense: arguments(
        units=units,
        use_bias=flags,
        tangent_gradient=flags,
        kernel_constraint=st.sampled_from([None, "orthogonal"]),
    ),
    layers.OrthogonalConv2D: arguments(
        filters=units,
        kernel_size=st.integers(1, 3),
        padding=st.sampled_from(["circular", "bounce", "same"]),
        use_bias=flags,
    ),
    layers.BatchNormDense: arguments(
        units=units,
        gain=st.floats(0.1, 2),
        center=flags,
        scale_by=st.sampled_from(["std", "norm"]),
        affine=flags,
        shrinkage=st.floats(0, 1),
        momentum=st.floats(0, 0.99),
    ),
    layers.BatchNormConv2D: arguments(
        filters=units,
        kernel_size=st.integers(1, 3),
        padding=st.sampled_from(["circular", "bounce", "same"]),
        gain=st.floats(0.1, 2),
        center=flags,
        shrinkage=st.floats(0, 1),
    ),
    layers.ROAFConv2D: arguments(
        filters=st.just(8),
        kernel_size=st.integers(1, 3),
        alpha=alphas,
        filter=filters,
        beta=st.none() | st.floats(-2, 2),
        filter_seed=st.none() | seeds,
    ),
    layers.ROAFDense: arguments(
        units=st.just(4),
        alpha=alphas,
        filter=filters,
        beta=st.none() | st.floats(-2, 2),
        use_bias=flags,
        shared_filter=flags,
        filter_seed=st.none() | seeds,
    ),
    layers.ROAF: arguments(
        units=units,
        alpha=alphas,
        filter=filters,
        use_bias=flags,
        return_sequences=flags,
        go_backwards=flags,
        checkpoint_every=st.sampled_from([None, 1, 3]),
    ),
}
CONVOLUTIONS = (layers.OrthogonalConv2D, layers.BatchNormConv2D, layers.ROAFConv2D)
kinds = st.sampled_from([*ARGUMENTS]).flatmap(
    lambda kind: st.tuples(st.just(kind), ARGUMENTS[kind])
)
blocks = st.sampled_from(
    [
        *("orthogonal dense", "tangent gradient", "batch norm dense", "roaf dense"),
        *("shared filter", "dense with losses", "layer normalization", "model"),
    ]
)


def batch(kind, seed):
    shapes = dict.fromkeys(CONVOLUTIONS, (2, 3, 2, 8)) | {layers.ROAF: (2, 3, 4)}
    return normal(shapes.get(kind, (3, 4)), seed, "float32")


def through_json(layer):
    """A layer from the config of another, as a file has it, with its weights."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    if not again.built:
        again.build(layer.get_build_config()["input_shape"])
    again.set_weights(layer.get_weights())
    return again


@property_of(
    layers.OrthogonalDense, layers.BatchNormDense, layers.ROAFDense, layers.ROAF
)
@given(kinds, seeds)
@example((layers.BatchNormDense, {"units": 4, "dtype": "bfloat16"}), 0)
def test_layers_tell_their_shape_and_come_back_from_their_config(kind, seed):
    kind, arguments = kind
    layer, x = kind(**arguments), batch(kind, seed)
    y = layer(x)
    assert tuple(y.shape) == tuple(layer.compute_output_shape(x.shape))
    assert dtype_of(y) == layer.compute_dtype
    assert np.isfinite(array(y)).all()
    trained = layer(x, training=True)
    assert dtype_of(trained) == layer.compute_dtype and trained.shape == y.shape
    again = through_json(layer)
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(array(again(x)), array(layer(x)))


@property_of(
    layers.OrthogonalDense, layers.BatchNormDense, layers.ROAFDense, layers.ROAF
)
@given(kinds, seeds)
def test_in_evaluation_samples_do_not_see_each_other(kind, seed):
    kind, arguments = kind
    layer, x = kind(**{**arguments, "dtype": "float32"}), batch(kind, seed)
    np.testing.assert_allclose(array(layer(x[:1])), array(layer(x))[:1], atol=1e-5)


@property_of(layers.OrthogonalDense)
@given(units, units, seeds)
def test_orthogonal_layers_keep_lengths_where_they_do_not_narrow(inputs, extra, seed):
    layer = layers.OrthogonalDense(inputs + extra - 1)
    x = normal((3, inputs), seed, "float32")
    np.testing.assert_allclose(
        np.linalg.norm(array(layer(x)), axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5
    )
    layer.assert_orthogonal()


@property_of(layers.BatchNormDense)
@given(st.floats(0.1, 3), seeds)
def test_normalized_features_have_the_gain_for_deviation(gain, seed):
    """And in evaluation too, once the statistics are those of the data."""
    layer = layers.BatchNormDense(4, gain=gain, epsilon=0)
    x = normal((12, 4), seed, "float32")
    trained = array(layer(x, training=True))
    np.testing.assert_allclose(trained.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(trained.std(axis=0), gain, rtol=1e-3)
    recalibration.Recalibration().set_statistics(layer, [x])
    np.testing.assert_allclose(array(layer(x)), trained, atol=1e-3)


@property_of(layers.ROAFDense)
@given(filters, alphas, st.floats(-2, 2), flags, seeds)
def test_additive_filters_keep_lengths_and_add(filter, alpha, beta, shared, seed):
    """`alpha` times what keeps lengths, and `beta` times a dense layer."""
    x = normal((3, 4), seed, "float32")
    settings = {"filter": filter, "filter_seed": seed, "shared_filter": shared}
    layer = layers.ROAFDense(4, alpha, "tanh", beta=beta, **settings)
    filtered = layers.ROAFDense(4, 1.0, **settings)(x)  # of the same seed
    np.testing.assert_allclose(
        np.linalg.norm(array(filtered), axis=-1),
        np.linalg.norm(x, axis=-1),
        rtol=1e-5,
    )
    y = array(layer(x))
    expected = alpha * array(filtered) + beta * np.tanh(x @ array(layer.kernel))
    np.testing.assert_allclose(y, expected, atol=1e-5)


@property_of(layers.ROAF, layers.ROAFCell)
@given(ARGUMENTS[layers.ROAF], seeds)
def test_the_recurrent_layer_is_the_loop_of_its_cell(arguments, seed):
    arguments = {**arguments, "dtype": "float32"}
    of_loop = ("return_sequences", "go_backwards")
    loop = {name: arguments[name] for name in of_loop}
    layer, x = layers.ROAF(**arguments), batch(layers.ROAF, seed)
    y = layer(x)
    cell = layers.ROAFCell.from_config(layer.cell.get_config())
    plain = keras.layers.RNN(cell, **loop)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(array(plain(x)), array(y), atol=1e-5)


@property_of(layers.DepthStack)
@rarely
@given(blocks, st.integers(1, 4), flags, st.integers(1, 4), flags, seeds)
@example("orthogonal dense", 3, False, 1, False, 0)
@example("batch norm dense", 4, True, 2, True, 1)
def test_a_stack_is_its_layers_in_turn(name, depth, every, divisor, sequence, seed):
    divisor = divisor if every and depth % divisor == 0 else None
    stack = layers.DepthStack(BLOCKS[name](4), depth, sequence, divisor)
    x = normal((3, 4), seed, "float32")
    y = stack(x)
    assert tuple(y.shape) == tuple(stack.compute_output_shape(x.shape))
    outputs = [x]
    for index in range(depth):
        outputs.append(stack.layer_at(index)(outputs[-1]))
    outputs = np.stack([array(z) for z in outputs[1:]], axis=1)
    expected = outputs if sequence else outputs[:, -1]
    np.testing.assert_allclose(array(y), expected, atol=1e-5)
    np.testing.assert_allclose(array(through_json(stack)(x)), array(y), atol=1e-6)


@property_of(layers.DepthStack)
@rarely
@given(blocks, st.integers(1, 4), seeds)
@example("dense with losses", 3, 0)
def test_a_stack_from_its_layers_is_the_same(name, depth, seed):
    stack = layers.DepthStack(BLOCKS[name](4), depth)
    x = normal((3, 4), seed, "float32")
    y = stack(x)
    again = layers.DepthStack.from_layers([stack.layer_at(i) for i in range(depth)])
    np.testing.assert_allclose(array(again(x)), array(y), atol=1e-6)
    firsts = [w[0] for w in stack.get_weights()]
    each = [[np.copy(w) for w in layer.get_weights()] for layer in stack.each_layer()]
    for first, w in zip(firsts, each[0], strict=True):
        np.testing.assert_array_equal(first, w)
