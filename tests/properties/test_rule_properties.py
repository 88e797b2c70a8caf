"""Of rules of layers: their own gradient is that of what they compute."""

import numpy as np
from draws import normal, property_of, rarely, seeds
from hypothesis import example, given
from hypothesis import strategies as st
from keras import ops

from keras_bsnn import _backend, depth
from keras_bsnn.depth import _checkpoints, _loop


def inverse(index):
    """What depends on the position of a layer."""
    return 1 / (1 + ops.cast(index, "float32"))


class Generic(depth.Rule):
    """`x + tanh(scale * x + bias)` with a shared bias, by its step alone.

    The scale is the weight over the position of the layer.
    """

    def bend(self, carry, layer):
        scale = inverse(layer.index) * layer.weights["scale"]
        return ops.tanh(scale * carry + layer.shared)

    def step(self, carry, layer):
        bend = self.bend(carry, layer)
        return depth.Step(carry + bend, outputs=ops.sum(bend))


class Own(Generic):
    """The same with a gradient of its own, for some layers at once.

    Args:
        chunk: largest number of such layers.
    """

    def __init__(self, chunk):
        self.chunk = chunk

    def step(self, carry, layer):
        bend = self.bend(carry, layer)
        return depth.Step(carry + bend, ops.sum(bend), kept=(carry, bend))

    def prepare(self, entering, kept, layers):
        x, bend = kept
        return x, 1 - ops.square(bend)

    def pull(self, gradient, prepared, layer):
        inner = (gradient.carry + gradient.outputs) * prepared[1]
        scale = inverse(layer.index) * layer.weights["scale"]
        return gradient.carry + scale * inner, inner

    def gradients(self, prepared, pulled, layers):
        of_scale = ops.sum(pulled * prepared[0], axis=1)
        indices = layers.index + ops.arange(of_scale.shape[0], dtype="int32")
        of_scale = inverse(indices)[:, None] * of_scale
        return {"scale": of_scale}, ops.sum(pulled, axis=(0, 1))


@property_of(depth.Rule, depth.Layer, depth.Step)
@rarely
@example(seed=0, count=9, chunk=1, keep=True)  # segments of several chunks
@given(seeds, st.integers(1, 9), st.none() | st.integers(1, 4), st.booleans())
def test_a_rule_with_a_gradient_equals_one_without(seed, count, chunk, keep):
    x, shared = normal((3, 4), seed, "float32"), normal((4,), seed + 1, "float32")
    scale = normal((count, 4), seed + 2, "float32")
    size = max(k for k in (1, 2, 3) if count % k == 0)

    def measured(rule, sizes=()):
        def loss(tensors):
            x, scale, shared = tensors
            layers = depth.Layer({"scale": scale}, shared=shared)
            loop = _loop.Loop(count, keep)
            found = _checkpoints.run(rule, x, layers, loop, sizes)
            value = ops.sum(ops.sin(found.carry)) + ops.sum(ops.sin(found.outputs))
            return value, found.outputs

        arguments = [ops.convert_to_tensor(z) for z in (x, scale, shared)]
        value, outputs, gradients = _backend.value_and_gradients(loss, arguments)
        return [*map(ops.convert_to_numpy, (value, outputs, *gradients))]

    expected = measured(Generic())
    once, nested = (size,), (count, size, 1)
    for rule, sizes in (
        (Own(chunk), ()),
        (Own(chunk), once),
        (Own(chunk), nested),
        (Generic(), once),
        (Generic(), nested),
    ):
        for ours, theirs in zip(measured(rule, sizes), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
