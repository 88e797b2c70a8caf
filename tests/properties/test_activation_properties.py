"""Of activations, initializers and constraints, for arguments that are drawn."""

import keras
import numpy as np
import pytest
from backends import HAS_FLOAT64
from draws import (
    ACTIVATIONS,
    FEW_SHAPES,
    ROUNDING,
    array,
    dtype_of,
    dtypes,
    error_of,
    normal,
    orthogonal_matrix,
    property_of,
    rarely,
    scales,
    seeds,
    shapes,
)
from hypothesis import given
from hypothesis import strategies as st

from keras_bsnn import activations, constraints, initializers
from keras_bsnn.ops import gaussian, orthogonal

names = st.sampled_from(ACTIVATIONS)
ACCURACY = 1e-9 if HAS_FLOAT64 else 1e-5


def again(thing):
    """Through its config, as a saved file has it."""
    return keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(thing)
    )


@property_of(activations.GaussianPoincare)
@given(names, st.sampled_from(gaussian.ROOTS), shapes, dtypes, seeds)
def test_normalized_activations(name, root, shape, dtype, seed):
    """Moments of 1; the dtype of what they receive; and the same from a config."""
    phi = activations.GaussianPoincare(name, root)
    m = gaussian.moments(phi)
    np.testing.assert_allclose(m.second_moment, 1, rtol=ACCURACY)
    np.testing.assert_allclose(m.derivative_second_moment, 1, rtol=ACCURACY)
    x = keras.ops.convert_to_tensor(normal(shape, seed), dtype)
    y = phi(x)
    assert dtype_of(y) == dtype and tuple(y.shape) == shape
    np.testing.assert_array_equal(array(y), array(again(phi)(x)))


@pytest.mark.slow
@property_of(activations.DepthShaped)
@rarely
@given(st.sampled_from(["tanh", "gelu", "relu"]), st.integers(2, 5), st.floats(0.01, 1))
def test_shaped_activations_take_orthogonal_inputs_to_eta(name, depth, share):
    reached = 0.0  # by the function alone, which is the most that shaping can
    for _ in range(depth):
        reached = gaussian.kernel_map(activations.get(f"gp_{name}"), reached)
    eta = 0.9 * share * min(reached, 0.9)
    phi = activations.DepthShaped(name, depth, eta)
    rho = 0.0
    for _ in range(depth):
        rho = gaussian.kernel_map(phi, rho)
    np.testing.assert_allclose(rho, eta, rtol=1e-6 if HAS_FLOAT64 else 1e-3)
    assert again(phi).get_config() == phi.get_config()


@property_of(activations.Gained)
@given(names, st.floats(-3, 3), shapes, dtypes, seeds)
def test_a_gain_is_inside(name, gain, shape, dtype, seed):
    layer = activations.Gained(name, gain)
    x = keras.ops.convert_to_tensor(normal(shape, seed), dtype)
    assert dtype_of(layer(x)) == dtype
    expected = keras.activations.get(name)(gain * x)
    np.testing.assert_array_equal(array(layer(x)), array(expected))
    np.testing.assert_array_equal(array(again(layer)(x)), array(expected))


@property_of(activations.get)
@given(st.sampled_from([*ACTIVATIONS, "sin"]), st.booleans(), seeds)
def test_get_is_the_same_by_name_by_config_and_by_itself(name, normalized, seed):
    found = activations.get("gp_" * normalized + name)
    assert activations.get(found) is found
    x = keras.ops.convert_to_tensor(normal((4, 4), seed, "float32"))
    loaded = activations.get(keras.saving.serialize_keras_object(found))
    np.testing.assert_array_equal(array(found(x)), array(loaded(x)))


@property_of(initializers.HaarOrthogonal)
@given(shapes, dtypes, seeds, st.floats(-2, 2))
def test_haar_matrices(shape, dtype, seed, gain):
    """Orthogonal times the gain, the same for a seed, and others for another."""
    draw = initializers.HaarOrthogonal(gain, seed)
    w = draw(shape, dtype)
    assert tuple(w.shape) == shape and dtype_of(w) == dtype
    np.testing.assert_array_equal(array(w), array(again(draw)(shape, dtype)))
    unit = initializers.HaarOrthogonal(seed=seed)(shape, dtype)
    assert error_of(unit) < ROUNDING[dtype]
    np.testing.assert_allclose(array(w), gain * array(unit), atol=2 * ROUNDING[dtype])
    if max(shape[-2:]) > 1:
        other = initializers.HaarOrthogonal(seed=(seed + 1) % 2**32)(shape, dtype)
        assert np.abs(array(other) - array(unit)).max() > 1e-3


@property_of(initializers.DepthDecay)
@given(st.integers(1, 50), st.floats(-2, 2), st.floats(-10, 10), st.integers(0, 2))
def test_gains_decay_as_a_power_of_depth(depth, exponent, scale, axes):
    draw = initializers.DepthDecay(exponent, scale)
    values = array(draw((depth, *[2] * axes), "float32"))
    layers = np.arange(1, depth + 1).reshape(-1, *[1] * axes)
    np.testing.assert_allclose(
        values,
        np.broadcast_to(scale * layers**-exponent, values.shape),
        rtol=1e-5,
        atol=1e-30,
    )
    np.testing.assert_array_equal(values, array(again(draw)(values.shape, "float32")))


traced_shapes = st.sampled_from(FEW_SHAPES)
RETRACTIONS = [*constraints.RETRACTIONS, orthogonal.polar]


@pytest.mark.slow
@property_of(constraints.Orthogonal)
@given(
    st.sampled_from(RETRACTIONS),
    st.integers(1, 3),
    st.sampled_from([0.0, 1e-4, 0.1]),
    *(traced_shapes, dtypes, seeds, scales),
)
def test_the_constraint_leaves_no_more_than_its_tolerance(
    retraction, steps, tolerance, shape, dtype, seed, scale
):
    """From any matrix; and what it returns, it leaves as it is."""
    constraint = constraints.Orthogonal(retraction, steps, tolerance)
    kernel = keras.ops.convert_to_tensor(scale * normal(shape, seed), dtype)
    w = constraint(kernel)
    assert tuple(w.shape) == shape and dtype_of(w) == dtype
    # The estimate takes a few random vectors: twice the tolerance may escape it.
    assert error_of(w) <= max(2 * tolerance, ROUNDING[dtype])
    slack = max(2 * tolerance, ROUNDING[dtype])
    np.testing.assert_allclose(array(constraint(w)), array(w), atol=slack)


@property_of(constraints.Orthogonal)
@given(st.sampled_from(["newton_schulz", "cayley"]), traced_shapes, seeds)
def test_the_constraint_finds_the_nearest(retraction, shape, seed):
    w = orthogonal_matrix(shape, seed, "float32")
    w += (0.01 * normal(shape, seed)).astype("float32")
    found = constraints.Orthogonal(retraction)(w)
    np.testing.assert_allclose(array(found), array(orthogonal.polar(w)), atol=1e-5)
