"""Of steps of our optimizers, for kernels and gradients that are drawn."""

import math

import keras
import numpy as np
from draws import array, error_of, normal, property_of, seeds
from hypothesis import given
from hypothesis import strategies as st

from keras_bsnn import constraints, initializers, optimizers
from keras_bsnn.ops import orthogonal
from keras_bsnn.optimizers._turns import even_period

shapes = st.sampled_from([(4, 4), (5, 2), (2, 5), (3, 4, 2)])
depths = st.sampled_from([(3, 4, 2), (7, 3, 3)]) | shapes
periods = st.integers(1, 40)
rates = st.floats(1e-4, 0.5)


def kernel(shape, seed, constraint=None):
    value = initializers.HaarOrthogonal(seed=seed)(shape)
    return keras.Variable(value), constraint or constraints.Orthogonal()


def stepped(optimizer, shape, seed):
    """A kernel before and after a step, and its gradient."""
    variable, variable.constraint = kernel(shape, seed)
    before, gradient = array(variable), normal(shape, seed + 1, "float32")
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return before, array(variable), gradient


def again(optimizer):
    return keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))


@property_of(optimizers.Stiefel)
@given(shapes, rates, seeds)
def test_a_step_of_stiefel_is_the_retracted_tangent_step(shape, rate, seed):
    optimizer = again(optimizers.Stiefel(keras.optimizers.SGD(rate)))
    before, after, gradient = stepped(optimizer, shape, seed)
    assert error_of(after) < 1e-5
    tangent = array(orthogonal.project_tangent(before.astype("float32"), gradient))
    moved = (before - rate * tangent).astype("float32")
    expected = constraints.Orthogonal()(keras.ops.convert_to_tensor(moved))
    np.testing.assert_allclose(after, array(expected), atol=1e-5)


@given(st.integers(1, 10**6), st.integers(1, 10**4) | periods)
def test_turns_are_even_at_any_depth(depth, period):
    even = even_period(depth, period)
    due = np.bincount(np.arange(depth) % even)
    assert len(due) == even <= period
    assert due.max() == math.ceil(depth / period)
    # The size of a step: a kernel that is due goes `even / depth` of the way.
    assert due.max() * even < depth * (1 + 1 / period)
    assert even in (depth, period) or depth % period


@property_of(optimizers.StiefelMuon)
@given(
    *(depths, rates, seeds, st.floats(0, 0.99), st.booleans(), st.floats(-6, 6)),
    *(periods, st.integers(0, 100)),
)
def test_a_step_of_muon_is_bounded_whatever_the_gradient(
    shape, rate, seed, momentum, nesterov, exponent, period, step
):
    optimizer = optimizers.StiefelMuon(rate, momentum, nesterov, period=period)
    optimizer = again(optimizer)
    optimizer.iterations.assign(step)
    variable, variable.constraint = kernel(shape, seed)
    before = array(variable)
    gradient = (10.0**exponent * normal(shape, seed + 1)).astype("float32")
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    after = array(variable)
    assert error_of(after) < 1e-5
    moved = np.linalg.norm(after - before, 2, axis=(-2, -1))
    # The retraction goes to the nearest: no farther than the step had gone, and back
    # where the kernel is square.
    farther = 1 if shape[-2] == shape[-1] else 2
    bound = farther * 1.204 * rate * (1 + 1 / period)
    assert moved.sum() < bound + 1e-5 * moved.size
    tangent = array(orthogonal.project_tangent(before.astype("float32"), gradient))
    assert ((after - before) * tangent).sum() < 0
