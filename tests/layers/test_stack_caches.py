"""Caches of keys and values: in by `per_layer`, out with an axis of depth."""

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, drawn
from backends import HAS_XLA
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.layers import DepthStack

DEPTH, UNITS, BATCH, LENGTH = 3, 4, 2, 5


@keras.saving.register_keras_serializable("tests")
class Decoder(keras.layers.Layer):
    """Causal attention of one head; with a cache, also for the tokens from an index."""

    def build(self, input_shape):
        self.kernels = self.add_weight(shape=(3, UNITS, UNITS), name="kernels")

    def call(self, x, cache=None, index=0, counts=None):
        q, k, v = (x @ self.kernels[i] for i in range(3))
        if cache is not None:
            start = (0, 0, index, 0)
            update = ops.stack([k, v], axis=1)
            cache = ops.slice_update(cache, start, ops.cast(update, cache.dtype))
            k, v = cache[:, 0], cache[:, 1]
        rows = ops.arange(ops.shape(q)[1])[:, None] + index
        seen = rows >= ops.arange(ops.shape(k)[1])
        scores = ops.where(seen, q @ ops.transpose(k, (0, 2, 1)), -1e9)
        y = x + ops.softmax(scores) @ v
        if cache is None:
            return y
        return (y, cache) if counts is None else (y, cache, counts + 1)


def empty():
    return np.zeros((DEPTH, BATCH, 2, LENGTH, UNITS), "float32")


def decoded(step, x, cache):
    """Outputs of a prompt of two tokens, and of the others one by one."""
    index = ops.convert_to_tensor(0)
    y, cache = step(ops.convert_to_tensor(x[:, :2]), cache, index)
    outputs = [y]
    for i in range(2, LENGTH):
        index = ops.convert_to_tensor(i)
        y, cache = step(ops.convert_to_tensor(x[:, i : i + 1]), cache, index)
        outputs.append(y)
    return ops.concatenate(outputs, axis=1), cache


@pytest.mark.parametrize("jit_compile", [False, HAS_XLA])
@pytest.mark.parametrize("has_layers", [False, True])
def test_decoding_equals_one_pass_and_a_loop(has_layers, jit_compile):
    x = drawn(BATCH, LENGTH, UNITS)
    stack = DepthStack(Decoder(), DEPTH)
    expected = stack(x)
    layers = [stack.layer_at(i) for i in range(DEPTH)]
    if has_layers:
        stack = DepthStack.from_layers([stack.layer_at(i) for i in range(DEPTH)])

    def stacked(x, cache, index):
        return stack(x, per_layer={"cache": cache}, index=index)

    def one_by_one(x, cache, index):
        new = []
        for layer, entry in zip(layers, cache, strict=True):
            x, entry = layer(x, cache=entry, index=index)
            new.append(entry)
        return x, ops.stack(new)

    found, caches = decoded(
        _backend.compiled(stacked, jit_compile), x, ops.convert_to_tensor(empty())
    )
    assert_allclose(found, expected, atol=1e-5)
    looped, of_loop = decoded(one_by_one, x, empty())
    assert_allclose(found, looped, atol=1e-5)
    assert_allclose(caches, of_loop, atol=1e-5)
    assert caches.shape == (DEPTH, BATCH, 2, LENGTH, UNITS)
    assert np.any(array(caches), axis=(1, 2, 4)).all()


def test_a_block_that_returns_several():
    """The results are in the order of the block's, also in a functional model."""
    stack, x = DepthStack(Decoder(), DEPTH), drawn(BATCH, LENGTH, UNITS)
    counts = np.arange(DEPTH, dtype="int32")
    y, cache, counted = stack(x, per_layer={"cache": empty(), "counts": counts})
    expected, alone = stack(x, per_layer={"cache": empty()})
    assert_allclose(y, expected, atol=1e-6)
    assert_allclose(cache, alone, atol=1e-6)
    np.testing.assert_array_equal(array(counted), counts + 1)
    inputs = keras.Input((LENGTH, UNITS), batch_size=BATCH)
    results = stack(inputs, per_layer={"cache": empty(), "counts": counts})
    model = keras.Model(inputs, results)
    for ours, theirs in zip(model(x), (y, cache, counted), strict=True):
        assert ours.shape == theirs.shape
        assert_allclose(ours, theirs, atol=1e-6)


def test_a_block_that_returns_what_it_does_not_take():
    class Halves(Decoder):
        def call(self, x):
            return x[:, :1] @ self.kernels[0], x

    with pytest.raises(ValueError, match=r"`block` must return.*the first of a tuple"):
        DepthStack(Halves(), DEPTH)(drawn(BATCH, LENGTH, UNITS))
