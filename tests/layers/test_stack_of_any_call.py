"""Stacks that are called as their blocks are, and stacks of layers that are there."""

import functools

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, drawn
from backends import HAS_XLA
from differentiated import compiled_gradients
from keras import ops

from keras_bsnn.layers import DepthStack

DEPTH, UNITS = 4, 6
register = keras.saving.register_keras_serializable("tests")


@register
class Gated(keras.layers.Layer):
    """A residual layer with a gate, which may also return what it adds."""

    def build(self, input_shape):
        self.dense = keras.layers.Dense(input_shape[-1], "tanh")
        self.dense.build(input_shape)

    def call(self, x, gate=None, keep=None, reverse=False, return_added=False):
        added = self.dense(x)
        added = added if gate is None else added * gate["gain"]
        added = -added if reverse else added
        y = x + added
        y = y if keep is None else ops.where(keep, y, x)
        return (y, added) if return_added else y


def named():
    return {
        "gate": {"gain": drawn(3, UNITS, seed=1)},
        "keep": np.array([[True], [False], [True]]),
        "reverse": True,
    }


def in_python(layers, x, **kwargs):
    for layer in layers:
        x = layer(x, **kwargs)
    return x


def test_it_is_called_as_its_block():
    stack, x = DepthStack(Gated(), DEPTH), drawn(3, UNITS)
    y = stack(x, **named())
    layers = [stack.layer_at(i) for i in range(DEPTH)]
    assert_allclose(y, in_python(layers, x, **named()), atol=1e-6)
    # And then with other arguments, and with none.
    y, added = stack(x, **named(), return_added=True)
    assert added.shape == (DEPTH, 3, UNITS)
    assert_allclose(y, x + array(added).sum(0) * named()["keep"], atol=1e-5)
    assert_allclose(stack(x), in_python(layers, x), atol=1e-6)
    with pytest.raises(TypeError, match="unknown"):
        stack(x, unknown=1)


@pytest.mark.parametrize("checkpoint_every", [None, 2])
def test_what_is_named_has_a_gradient(checkpoint_every):
    stack = DepthStack(Gated(), DEPTH, checkpoint_every=checkpoint_every)
    x, rest = drawn(3, UNITS), named()
    gain = ops.convert_to_tensor(rest.pop("gate")["gain"])
    stack(x, gate={"gain": gain}, **rest)
    layers = [stack.layer_at(i) for i in range(DEPTH)]

    def loss(call):
        return lambda given: ops.sum(ops.sin(call(x, gate={"gain": given[0]}, **rest)))

    one_by_one = functools.partial(in_python, layers)
    (ours,) = compiled_gradients(loss(stack), [gain])
    (theirs,) = compiled_gradients(loss(one_by_one), [gain])
    assert_allclose(ours, theirs, atol=1e-5)


def functional(layer, **flags):
    x, gain, keep = (keras.Input(s, dtype=t) for s, t in INPUTS)
    y = layer(x, gate={"gain": gain}, keep=keep, **flags)
    return keras.Model([x, gain, keep], y)


INPUTS = [((UNITS,), "float32"), ((UNITS,), "float32"), ((1,), "bool")]


@pytest.mark.parametrize("return_added", [False, True])
def test_a_functional_model_that_names_arguments_comes_back(return_added, tmp_path):
    stack = DepthStack(Gated(), DEPTH)
    model = functional(stack, reverse=True, return_added=return_added)
    model.compile("sgd", "mse", jit_compile=HAS_XLA)
    given = [drawn(3, UNITS), named()["gate"]["gain"], named()["keep"]]
    target = keras.tree.map_structure(np.zeros_like, model.predict(given, verbose=0))
    model.train_on_batch(given, target)
    expected = keras.tree.flatten(model.predict(given, verbose=0))
    assert len(expected) == 1 + return_added
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found = keras.tree.flatten(loaded.predict(given, verbose=0))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


class WithoutConfig(keras.layers.Layer):
    """One that Keras cannot make anew, with dropout and something it does not use."""

    def __init__(self, rate, index=0, function=None):
        super().__init__()
        self.function = function or (lambda x: rate * x)
        self.dense = keras.layers.Dense(UNITS, kernel_initializer="orthogonal")
        self.dropout = keras.layers.Dropout(0.5, seed=index)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x, bias):
        return self.dropout(self.function(self.dense(x))) + bias

    def get_config(self):
        raise NotImplementedError("none of your business")


def test_layers_without_a_config():
    x, bias = drawn(3, UNITS), drawn(UNITS, seed=1)
    layers = [WithoutConfig(0.5, index) for index in range(DEPTH)]
    expected = x
    for layer in layers:
        expected = layer(expected, bias)
    before = [array(v) for v in layers[0].variables]
    stack = DepthStack.from_layers(layers)
    assert [tuple(v.shape) for v in stack.trainable_variables] == [
        (DEPTH, UNITS, UNITS),
        (DEPTH, UNITS),
    ]
    assert_allclose(stack(x, bias), expected, atol=1e-6)
    assert_allclose(stack(x, bias=bias), expected, atol=1e-6)
    # Each layer draws by itself, and the first is not touched.
    y = array(stack(np.ones((1, UNITS), "float32"), bias, training=True))
    assert np.abs(y - array(stack(np.ones((1, UNITS), "float32"), bias))).max() > 1e-3
    for variable, value in zip(layers[0].variables, before, strict=True):
        np.testing.assert_array_equal(array(variable), value)
    with pytest.raises(NotImplementedError, match="none of your business"):
        stack.layer_at(0)


def test_layers_that_do_something_else():
    def layer(*args):
        made = WithoutConfig(*args)
        made.build((None, UNITS))
        return made

    first = layer(0.5)
    DepthStack.from_layers([first, layer(0.5, 3)])
    for other, where in (
        (layer(0.6), "function.*0.5 and 0.6"),
        (layer(0.5, 0, ops.tanh), "function.*<lambda> and tanh"),
    ):
        with pytest.raises(ValueError, match=f"`layers` must be equal.*{where}"):
            DepthStack.from_layers([first, other])
    frozen = layer(0.5)
    frozen.dense.trainable = False
    with pytest.raises(ValueError, match=r"`layers` must be equal.*dense"):
        DepthStack.from_layers([first, frozen])


def test_a_list_in_a_layer_is_looked_into():
    class Many(keras.layers.Layer):
        def __init__(self, sizes):
            super().__init__()
            self.sizes = {"of": [np.array(sizes)], "set": {1, 2}}

        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(UNITS, UNITS))

        def call(self, x):
            return x @ self.kernel

    layers = [Many(sizes) for sizes in ([1, 2], [1, 2], [1, 3])]
    for layer in layers:
        layer.build((None, UNITS))
    assert DepthStack.from_layers(layers[:2])(drawn(2, UNITS)).shape == (2, UNITS)
    with pytest.raises(ValueError, match=r"`layers` must be equal.*sizes"):
        DepthStack.from_layers(layers)


def test_a_call_that_was_refused_is_refused_again():
    class Grows(keras.layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(UNITS, UNITS))

        def call(self, x, twice=False):
            y = x @ self.kernel
            return ops.concatenate([y, y], axis=-1) if twice else y

    stack, x = DepthStack(Grows(), 2), drawn(3, UNITS)
    stack(x)
    for _ in range(2):
        with pytest.raises(ValueError, match="`block` must return"):
            stack(x, twice=True)
    assert stack(x).shape == (3, UNITS)


@register
class Forgetful(keras.layers.Layer):
    """One with dropout, whose `call` does not ask whether it trains."""

    def build(self, input_shape):
        self.gain = self.add_weight(shape=input_shape[1:], initializer="ones")
        self.dropout = keras.layers.Dropout(0.5)

    def call(self, x):
        return self.dropout(x) * self.gain


@pytest.mark.parametrize("jit_compile", [False, True] if HAS_XLA else [False])
@pytest.mark.parametrize("every", [None, 2])
def test_the_gradient_drops_what_the_call_has_dropped(every, jit_compile):
    """What the gains of a layer do to the sum of outputs is the sum, as they are 1."""
    stack = DepthStack(Forgetful(), DEPTH, checkpoint_every=every)
    x = np.ones((64, UNITS), "float32")
    model = keras.Sequential([keras.Input((UNITS,)), stack])
    rate, start = 0.5, array(stack.weights[0])

    def mean(_, outputs):
        return ops.mean(outputs, axis=-1)

    model.compile(keras.optimizers.SGD(rate), mean, jit_compile=jit_compile)
    loss = model.train_on_batch(x, x)
    gradients = (start - array(stack.weights[0])) / rate
    assert 0 < loss != 1
    assert_allclose(gradients.sum(axis=1), np.full(DEPTH, loss), atol=1e-5)
