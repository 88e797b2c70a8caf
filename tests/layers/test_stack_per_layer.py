"""Stacks that give each layer values of its own, from their configuration."""

import json

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, drawn
from backends import HAS_XLA, writes_saved_model
from differentiated import compiled_gradients
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.diagnostics import signal_report
from keras_bsnn.layers import DepthStack, OrthogonalDense

DEPTH, UNITS = 5, 6
SCHEDULE = np.linspace(0, 0.8, DEPTH)


@keras.saving.register_keras_serializable("tests")
class StochasticDepth(keras.layers.Layer):
    """A residual layer that drops its branch, for each sample, at a rate it is told."""

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        self.dense = keras.layers.Dense(input_shape[-1], "tanh")
        self.dense.build(input_shape)

    def call(self, x, rate, shift=None, training=None):
        added = self.dense(x)
        if shift is not None:
            added = added + shift["by"]
        if training:
            shape = (ops.shape(x)[0], 1)
            kept = (
                keras.random.uniform(shape, dtype=x.dtype, seed=self.generator) > rate
            )
            added = ops.where(kept, added / (1 - rate), 0.0)
        return x + added

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def stochastic(per_layer=None, **kwargs):
    per_layer = {"rate": SCHEDULE} if per_layer is None else per_layer
    return DepthStack(StochasticDepth(), DEPTH, per_layer=per_layer, **kwargs)


def chain(layers, x, **kwargs):
    for layer, rate in zip(layers, SCHEDULE.astype("float32"), strict=True):
        x = layer(x, rate=rate, **kwargs)
    return x


@pytest.mark.parametrize("checkpoint_every", [None, 1])
def test_stochastic_depth_equals_a_chain_of_layers(checkpoint_every):
    """Outputs and gradients, as each layer draws from a generator of its own."""
    stack, x = stochastic(checkpoint_every=checkpoint_every), drawn(8, UNITS)
    stack.build(x.shape)
    layers = [stack.layer_at(i) for i in range(DEPTH)]
    assert_allclose(stack(x), chain(layers, x), atol=1e-6)

    ours = trained(stack, stack.variables, x)
    theirs = trained(
        lambda x, **kwargs: chain(layers, x, **kwargs),
        [v for layer in layers for v in layer.variables],
        x,
    )
    count = len(theirs) // DEPTH
    for i, gradient in enumerate(ours):
        assert_allclose(gradient, np.stack(theirs[i::count]), atol=1e-5)


def trained(call, variables, x):
    weights = [v for v in variables if v.trainable]
    others = [(v, _backend.read(v)) for v in variables if not v.trainable]

    def loss(values):
        with keras.StatelessScope([*others, *zip(weights, values, strict=True)]):
            return ops.sum(ops.sin(call(x, training=True)))

    return [*map(array, compiled_gradients(loss, [*map(_backend.read, weights)]))]


def test_training_and_evaluation_differ():
    stack, x = stochastic(), drawn(8, UNITS)
    evaluated = array(stack(x))
    assert np.abs(array(stack(x, training=True)) - evaluated).max() > 1e-2
    rates = np.zeros(DEPTH)
    kept = stochastic({"rate": rates})
    kept.build(x.shape)
    kept.set_weights(stack.get_weights())
    assert_allclose(kept(x, training=True), evaluated, atol=1e-6)


@writes_saved_model
def test_it_is_trained_saved_and_served(tmp_path):
    x = drawn(8, UNITS)
    model = keras.Sequential([keras.Input((UNITS,)), stochastic()])
    model.compile("adam", "mse", jit_compile=HAS_XLA)
    model.fit(x, x, epochs=2, verbose=0)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    model.export(tmp_path / "served", verbose=False)
    import tensorflow as tf

    served = tf.saved_model.load(tmp_path / "served")
    assert_allclose(np.asarray(served.serve(x)), expected, atol=1e-5)


def test_its_signals_are_those_of_its_layers():
    """All of them: none is skipped where they are measured."""
    shift = drawn(DEPTH, UNITS, seed=1)
    given = {"rate": np.zeros(DEPTH), "shift": {"by": shift}}
    stack, x = stochastic(given, layer_drop=0.9), drawn(64, UNITS)
    model = keras.Sequential([keras.Input((UNITS,)), stack])
    report = signal_report(model, x, x, loss="mse")
    y, expected = x, []
    for i in range(DEPTH):
        y = array(stack.layer_at(i)(y, rate=0.0, shift={"by": shift[i]}))
        expected.append(np.sqrt(np.mean(np.square(y))))
    assert_allclose(report.root_mean_square, expected, rtol=1e-4)


def test_a_call_adds_others():
    stack, x = stochastic(), drawn(3, UNITS)
    shift = {"by": drawn(DEPTH, UNITS, seed=1)}
    found = stack(x, per_layer={"shift": shift})
    expected = x
    for i, rate in enumerate(SCHEDULE):
        expected = stack.layer_at(i)(expected, rate, {"by": shift["by"][i]})
    assert_allclose(found, expected, atol=1e-6)
    # As arrays in a dict of the configuration, too.
    both = stochastic({"rate": SCHEDULE, "shift": shift})
    both.build(x.shape)
    both.set_weights(stack.get_weights())
    assert_allclose(both(x), expected, atol=1e-6)
    probes = np.zeros((DEPTH, *x.shape), "float32")
    for refused in (
        lambda: stack(x, per_layer={"rate": SCHEDULE}),
        lambda: both(x, per_layer={"shift": shift}),
        lambda: stack.observe(x, probes=probes, per_layer={"rate": SCHEDULE}),
    ):
        with pytest.raises(ValueError, match="`per_layer` of a call must not name"):
            refused()


def test_layers_that_are_there():
    layers, x = [StochasticDepth(seed=i) for i in range(DEPTH)], drawn(3, UNITS)
    expected = chain(layers, x)
    stack = DepthStack.from_layers(layers, per_layer={"rate": SCHEDULE})
    assert_allclose(stack(x), expected, atol=1e-6)


def test_configuration():
    kinds = {"rate": [0.1] * DEPTH, "shift": {"by": np.eye(DEPTH, UNITS)}}
    stack = stochastic(kinds)
    config = stack.get_config()
    again = DepthStack.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    np.testing.assert_array_equal(again.per_layer["shift"]["by"], np.eye(DEPTH, UNITS))
    dtypes = {"float64": "float32", "int64": "int32", "uint8": "int32", "bool": "bool"}
    for given, expected in dtypes.items():
        stack = stochastic({"rate": np.ones(DEPTH, given)})
        again = DepthStack.from_config(json.loads(json.dumps(stack.get_config())))
        assert (
            stack.per_layer["rate"].dtype == again.per_layer["rate"].dtype == expected
        )


@pytest.mark.parametrize(
    ("per_layer", "message"),
    [
        ([0.1] * DEPTH, "`per_layer` must be a dict"),
        ({"rates": SCHEDULE}, "keys are arguments of 'stochastic_depth.*mean 'rate'"),
        ({"rate": SCHEDULE[1:]}, r"`per_layer\['rate'\]`.*depth=5.*shape=\(4,\)"),
        ({"rate": 0.1}, r"`per_layer\['rate'\]`.*depth=5.*shape=\(\)"),
        ({"rate": ["a"] * DEPTH}, r"`per_layer\['rate'\]` must be an array of numbers"),
        ({"rate": [[1], [1, 2]]}, r"`per_layer\['rate'\]` must be an array of numbers"),
    ],
)
def test_what_is_no_value_of_each_layer(per_layer, message):
    with pytest.raises(ValueError, match=message):
        stochastic(per_layer)


def test_a_block_that_takes_no_more():
    with pytest.raises(ValueError, match="`per_layer` must be a dict whose keys"):
        DepthStack(OrthogonalDense(3), 2, per_layer={"gain": [1, 2]})
