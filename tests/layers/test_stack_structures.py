"""Stacks whose blocks take and return more than a tensor, against a loop in Python."""

import functools

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose
from backends import HAS_XLA, IS_TORCH, NO_SAVED_MODEL
from keras import ops
from versions import not_on_keras_3_10

from keras_bsnn import _backend
from keras_bsnn.layers import DepthStack

DEPTH, UNITS, BATCH, STEPS = 4, 6, 5, 3
register = keras.saving.register_keras_serializable("tests")


@register
class Conditioned(keras.layers.Layer):
    """Attention with a mask, modulated by a vector for each sample."""

    def build(self, input_shape):
        self.attention = keras.layers.MultiHeadAttention(2, 3)
        self.attention.build(input_shape, input_shape)
        self.modulation = keras.layers.Dense(UNITS)
        self.modulation.build((None, 4))

    def call(self, x, mask, vector):
        y = self.attention(x, x, attention_mask=mask)
        return x + y * self.modulation(vector)[:, None]


@register
class Swapped(keras.layers.Layer):
    """Two streams that are mixed, and a counter of layers."""

    def build(self, input_shape):
        self.mix = keras.layers.Dense(UNITS, "tanh")
        self.mix.build(input_shape["left"])

    def call(self, x):
        right = x["right"] + self.mix(x["left"])
        return {"left": right, "right": x["left"], "count": x["count"] + 1}


@register
class Reversible(keras.layers.Layer):
    """Two streams, each of which is added to by the other."""

    def build(self, input_shape):
        self.first, self.second = (keras.layers.Dense(UNITS, "tanh") for _ in "12")
        self.first.build(input_shape[1])
        self.second.build(input_shape[0])

    def call(self, streams):
        a, b = streams
        a = a + self.first(b)
        return a, b + self.second(a)


@register
class Scaled(keras.layers.Layer):
    """A residual layer with a rate of its own, which returns what it adds."""

    def build(self, input_shape):
        self.dense = keras.layers.Dense(UNITS, "tanh")
        self.dense.build(input_shape)

    def call(self, x, rate=1.0):
        added = rate * self.dense(x)
        return x + added, {"added": added, "largest": ops.max(ops.abs(added))}


def draw(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def mask():
    return np.tril(np.ones((BATCH, STEPS, STEPS), bool))


CASES = {
    "mask and conditioning": (
        Conditioned,
        lambda: (draw(BATCH, STEPS, UNITS), mask(), draw(BATCH, 4)),
        {},
    ),
    "a dict as the carry": (
        Swapped,
        lambda: (
            {
                "left": draw(BATCH, UNITS),
                "right": draw(BATCH, UNITS, 1)[..., 0],
                "count": np.zeros(BATCH, "int32"),
            },
        ),
        {},
    ),
    "a tuple as the carry": (
        Reversible,
        lambda: ((draw(BATCH, UNITS), draw(BATCH, UNITS, 1)[..., 0]),),
        {},
    ),
    "inputs and outputs of each layer": (
        Scaled,
        lambda: (draw(BATCH, UNITS),),
        {"rate": np.linspace(0.1, 1, DEPTH, dtype="float32")},
    ),
}


def assert_close(these, those):
    """To 1e-5 of the largest entry."""
    scale = max(1.0, np.abs(np.asarray(those)).max())
    np.testing.assert_allclose(these, those, rtol=0, atol=1e-5 * scale)


def looped(layers, inputs, context, per_layer):
    """What a stack of the layers returns, by a loop in Python."""
    extras = []
    for i, layer in enumerate(layers):
        slices = {name: value[i] for name, value in per_layer.items()}
        inputs = layer(inputs, *context, **slices)
        if isinstance(inputs, tuple) and isinstance(inputs[1], dict):
            inputs, extra = inputs
            extras.append(extra)
    if not extras:
        return inputs
    return inputs, {k: ops.stack([e[k] for e in extras]) for k in extras[0]}


def gradients(call, variables, arguments, jit_compile):
    """Outputs, and gradients of mean squares: of arguments and of variables."""
    flat = [ops.convert_to_tensor(x) for x in keras.tree.flatten(arguments)]
    is_float = [_backend.is_float(x) for x in flat]
    floats = [x for x, f in zip(flat, is_float, strict=True) if f]

    def function(*tensors):
        def loss(tensors):
            given = iter(tensors)
            filled = [
                next(given) if f else x for x, f in zip(flat, is_float, strict=True)
            ]
            values = [*given]
            with keras.StatelessScope(zip(variables, values, strict=True)):
                y = call(*keras.tree.pack_sequence_as(arguments, filled))
            squares = [
                ops.mean(ops.square(z))
                for z in keras.tree.flatten(y)
                if _backend.is_float(z)
            ]
            return sum(squares), y

        _, y, found = _backend.value_and_gradients(loss, [*tensors])
        return y, found

    values = map(_backend.read, variables)
    y, found = _backend.compiled(function, jit_compile)(*floats, *values)
    count = len(floats)
    return y, found[:count], found[count:]


@functools.cache
def of_a_loop(name, jit_compile):
    """The weights of a stack, and what its layers give in a loop in Python."""
    block, make, per_layer = CASES[name]
    inputs, *context = make()
    stack = DepthStack(block(), DEPTH)
    stack(inputs, *context, per_layer=per_layer)
    layers = [stack.layer_at(i) for i in range(DEPTH)]

    def of_layers(inputs, context, per_layer):
        return looped(layers, inputs, context, per_layer)

    weights = [v for layer in layers for v in layer.trainable_variables]
    arguments = inputs, tuple(context), per_layer
    found = gradients(of_layers, weights, arguments, jit_compile)
    return stack.get_weights(), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint_every", "jit_compile"), [(None, False), (2, HAS_XLA)]
)
@pytest.mark.parametrize("name", CASES)
def test_it_equals_a_loop_in_python(name, checkpoint_every, jit_compile):
    """Outputs, and the gradients of every argument and of every weight."""
    block, make, per_layer = CASES[name]
    inputs, *context = make()
    stack = DepthStack(block(), DEPTH, checkpoint_every=checkpoint_every)
    stack(inputs, *context, per_layer=per_layer)
    weights, theirs = of_a_loop(name, jit_compile)
    stack.set_weights(weights)

    def of_stack(inputs, context, per_layer):
        return stack(inputs, *context, per_layer=per_layer)

    arguments = inputs, tuple(context), per_layer
    ours = gradients(of_stack, stack.trainable_variables, arguments, jit_compile)
    keras.tree.assert_same_structure(ours[0], theirs[0])
    pairs = zip(
        *(keras.tree.flatten(found[:2]) for found in (ours, theirs)), strict=True
    )
    for a, b in pairs:
        assert_close(a, b)
    per_weight = len(theirs[2]) // DEPTH
    for i, gradient in enumerate(ours[2]):
        expected = np.stack([np.asarray(g) for g in theirs[2][i::per_weight]])
        assert_close(gradient, expected)


def model_of(apply, examples):
    """A functional model whose inputs are like the examples."""
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=str(x.dtype)), examples
    )
    return keras.Model(inputs, apply(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mask and conditioning", "a dict as the carry", "a tuple as the carry"]
)
def test_a_step_a_reload_and_an_export(name, tmp_path):
    block, make, _ = CASES[name]
    examples = make()
    stack = DepthStack(block(), DEPTH)
    stacked = model_of(stack, examples)
    layers = [stack.layer_at(i) for i in range(DEPTH)]
    sequential = model_of(lambda x, *more: looped(layers, x, more, {}), examples)
    target = keras.tree.map_structure(
        lambda x: np.ones_like(x, "float32"), stacked.predict(examples, verbose=0)
    )
    is_jax = keras.backend.backend() == "jax"  # slow without jit
    for model, jit_compile in ((stacked, HAS_XLA), (sequential, is_jax)):
        model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=jit_compile)
        model.train_on_batch(examples, target)
    again = DepthStack.from_config(stack.get_config())
    again.build_from_config(stack.get_build_config())
    for i, layer in enumerate(layers):
        for ours, theirs in zip(stack.layer_at(i).weights, layer.weights, strict=True):
            np.testing.assert_allclose(
                ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs), atol=1e-6
            )
    expected = keras.tree.flatten(stacked.predict(examples, verbose=0))
    stacked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(
        keras.tree.flatten(loaded.predict(examples, verbose=0)), expected, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    if IS_TORCH:
        pytest.skip(NO_SAVED_MODEL)
    stacked.export(tmp_path / "served", verbose=False)
    import tensorflow as tf

    served = tf.saved_model.load(tmp_path / "served")
    some = keras.tree.map_structure(lambda x: tf.constant(x[:2]), examples)
    found = keras.tree.flatten(served.serve(some))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b[:2], atol=1e-5)


def test_per_layer_tensors_of_another_depth():
    stack = DepthStack(Scaled(), DEPTH)
    with pytest.raises(ValueError, match=r"`per_layer\['rate'\]`.*depth=4"):
        stack(draw(BATCH, UNITS), per_layer={"rate": np.ones(3, "float32")})


@not_on_keras_3_10("finds no masks of further tensors")
@pytest.mark.parametrize("by_name", [False, True])
def test_the_mask_of_a_context_reaches_every_layer(by_name):
    class Sees(keras.layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(), name="w", initializer="ones")

        def call(self, x, other, other_mask=None):
            if other_mask is None:  # while it is built
                return x
            return x + self.w * ops.cast(other_mask[..., None], x.dtype)

    x = draw(2, STEPS, UNITS)
    other = x.copy()
    other[0] = 0
    masked = keras.layers.Masking()(other)
    stack = DepthStack(Sees(), DEPTH)
    y = array(stack(x, other=masked) if by_name else stack(x, masked))
    assert_allclose((y - x)[0], 0, atol=1e-5)
    assert_allclose((y - x)[1], DEPTH, atol=1e-5)
