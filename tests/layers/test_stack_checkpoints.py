"""What a stack keeps for its gradient: nested segments of layers."""

import json

import keras
import numpy as np
import pytest
from arrays import array, drawn
from catalogue import BLOCKS
from differentiated import IS_JAX, gradients
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth import _checkpoints
from keras_bsnn.layers import DepthStack

UNITS = 6


@pytest.mark.parametrize("every", ["sqrt", (6, 3), (12, 6, 2), [4, 4, 1]])
@pytest.mark.parametrize("name", ["orthogonal dense", "dense", "dropout"])
def test_nested_segments_change_no_number(name, every):
    x, stacks = drawn(3, UNITS), []
    for checkpoint_every in (None, every):
        keras.utils.set_random_seed(0)
        stack = DepthStack(BLOCKS[name](UNITS), 12, checkpoint_every=checkpoint_every)
        stack.build(x.shape)
        stacks.append(stack)
    plain, nested = (gradients(stack, x, training=True) for stack in stacks)
    for ours, theirs in zip(nested, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_nested_segments_keep_the_state_of_layers():
    x, stacks = drawn(8, UNITS), []
    for checkpoint_every in (None, (4, 2)):
        stack = DepthStack(
            keras.layers.BatchNormalization(), 8, checkpoint_every=checkpoint_every
        )
        y = stack(x, training=True)
        stacks.append([array(v) for v in (y, *stack.non_trainable_variables)])
    for ours, theirs in zip(*stacks, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.skipif(not IS_JAX, reason="JAX tells what a program takes")
def test_memory_falls():
    import jax

    depth, width, batch = 1000, 64, 1024  # so that weights are small to it

    def temporary(every):
        block = keras.layers.Dense(width, "tanh")
        stack = DepthStack(block, depth, checkpoint_every=every)
        stack.build((None, width))
        values = [v.value for v in stack.trainable_variables]

        def loss(x):  # whose gradient with respect to x takes no more than carries
            state = zip(stack.trainable_variables, values, strict=True)
            with keras.StatelessScope(state):
                return ops.sum(stack(x, training=True))

        lowered = jax.jit(lambda x: _backend.gradients(lambda t: loss(t[0]), [x]))
        compiled = lowered.lower(np.ones((batch, width), "float32")).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    carry = 4 * batch * width
    kept, one, two = map(temporary, (None, "sqrt", (100, 10)))
    assert kept > depth * carry
    assert one < 0.12 * kept  # 25 and 40 carries
    assert two < 0.6 * one  # 10, 10 and 10


@pytest.mark.parametrize(
    ("depth", "size"), [(12, 3), (16, 4), (1000, 25), (7, 1), (2, 1), (1, 1)]
)
def test_the_divisor_nearest_to_the_square_root(depth, size):
    assert _checkpoints.sizes_of("sqrt", depth) == (size,)
    divisors = [k for k in range(1, depth + 1) if depth % k == 0]
    assert size == min(divisors, key=lambda k: abs(k - depth**0.5))


@pytest.mark.parametrize("every", ["sqrt", (6, 3)])
def test_configuration(every):
    stack = DepthStack(keras.layers.Dense(4), 12, checkpoint_every=every)
    config = stack.get_config()
    json.dumps(config)
    again = DepthStack.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.checkpoint_every == every


@pytest.mark.parametrize(
    ("every", "message"),
    [
        ((5,), "divisor of depth: 5 does not divide depth"),
        ((6, 4), "4 does not divide 6, the one before it"),
        ((6, 12), r"`checkpoint_every` must be an integer from 1 to 6"),
        ((6, 2.0), "`checkpoint_every` must be an integer"),
        ((), '`checkpoint_every` must be an integer, "sqrt", or a tuple'),
        ("sqr", "Did you mean 'sqrt'"),
        (True, "`checkpoint_every` must be"),
    ],
)
def test_segments_that_cannot_be(every, message):
    with pytest.raises(ValueError, match=message):
        DepthStack(keras.layers.Dense(3), 12, checkpoint_every=every)
