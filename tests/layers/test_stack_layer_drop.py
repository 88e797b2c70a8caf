"""Layers of a stack that are skipped at random in training."""

import json

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, drawn
from backends import HAS_XLA, IS_TORCH
from catalogue import BLOCKS
from differentiated import gradients
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth import _layer_drop
from keras_bsnn.layers import DepthStack, OrthogonalDense

DEPTH, UNITS = 6, 4
register = keras.saving.register_keras_serializable("tests")


class Chain(keras.layers.Layer):
    """Layers one after the other, of which some are skipped."""

    def __init__(self, layers, runs):
        super().__init__()
        self.of, self.runs = layers, runs

    def call(self, x, training=None):
        for layer, runs in zip(self.of, self.runs, strict=True):
            x = layer(x, training=training) if runs else x
        return x


def decisions(stack):
    """What the layers of a stack will draw next."""
    generator = keras.random.SeedGenerator(0)
    generator.state.assign(array(stack.seed_generator.state))
    return array(_layer_drop.drawn(stack.layer_drop, DEPTH, generator)).tolist()


def stack_of(block, **kwargs):
    """A stack that skips some of its layers, and runs some, in its next call."""
    keras.utils.set_random_seed(3)
    stack = DepthStack(block, DEPTH, **{"layer_drop": 0.5, **kwargs})
    stack.build((None, UNITS))
    while not 2 <= sum(decisions(stack)) < DEPTH - 1:
        stack(drawn(8, UNITS), training=True)
    return stack


def chain_of(stack):
    return Chain([stack.layer_at(i) for i in range(DEPTH)], decisions(stack))


CASES = [
    ("dense", {}),
    ("orthogonal dense", {}),
    ("orthogonal dense", {"checkpoint_every": 2}),
    ("tangent gradient", {}),
    ("batch norm dense", {"checkpoint_every": (6, 3)}),
    ("batch normalization", {"checkpoint_every": 3}),
    ("own layer", {}),
    ("roaf dense", {}),
]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_it_equals_a_chain_without_the_skipped_layers(name, kwargs):
    """Output, gradients, losses and statistics."""
    stack, x = stack_of(BLOCKS[name](UNITS), **kwargs), drawn(8, UNITS)
    chain = chain_of(stack)
    skipped = [i for i, runs in enumerate(chain.runs) if not runs]
    ours, theirs = (gradients(layer, x, training=True) for layer in (stack, chain))
    assert_allclose(ours[0], theirs[0], atol=1e-5)
    per_layer = len(theirs[1:]) // DEPTH
    for i, gradient in enumerate(ours[1:]):
        expected = np.stack(theirs[1 + i :: per_layer])
        assert_allclose(gradient, expected, atol=1e-5)
        assert not np.any(gradient[skipped])
    before = [array(v) for v in stack.non_trainable_weights]
    assert_allclose(stack(x, training=True), chain(x, training=True), atol=1e-5)
    assert_allclose(sum(stack.losses), sum(chain.losses), atol=1e-5)
    for i, variable in enumerate(stack.non_trainable_weights):
        layers = [layer.non_trainable_weights[i] for layer in chain.of]
        assert_allclose(variable, np.stack([*map(array, layers)]), atol=1e-5)
        np.testing.assert_array_equal(array(variable)[skipped], before[i][skipped])


def test_shards_change_no_number(monkeypatch):
    """Neither of the decisions, which are divided among devices as the weights are."""
    x, found = drawn(8, UNITS), []
    for shards in (1, 3):
        monkeypatch.setattr(_backend, "shards", lambda _, shards=shards: shards)
        keras.utils.set_random_seed(0)
        found.append(gradients(stack_of(BLOCKS["dense"](UNITS)), x, training=True))
    for ours, theirs in zip(*found, strict=True):
        assert_allclose(ours, theirs, atol=1e-6)


def test_random_numbers_of_skipped_layers_are_not_drawn():
    stack = stack_of(BLOCKS["dropout"](UNITS))
    chain = chain_of(stack)
    before, x = array(stack._built.constants[-1]), drawn(8, UNITS)
    assert_allclose(stack(x, training=True), chain(x, training=True), atol=1e-5)
    changed = np.any(array(stack._built.constants[-1]) != before, axis=1)
    assert changed.tolist() == chain.runs


def test_all_layers_run_in_evaluation():
    stack, x = stack_of(BLOCKS["dense"](UNITS)), drawn(8, UNITS)
    everything = Chain([stack.layer_at(i) for i in range(DEPTH)], [True] * DEPTH)
    for kwargs in ({}, {"training": False}):
        assert_allclose(stack(x, **kwargs), everything(x), atol=1e-6)
    probes = ops.zeros((DEPTH, *x.shape))
    observed = stack.every_output(x, probes, training=True)[0][-1]
    assert_allclose(observed, everything(x), atol=1e-6)


def test_rates_of_each_layer():
    rates = [0, 1, 0, 1, 1, 0]
    stack = DepthStack(keras.layers.Dense(UNITS), DEPTH, layer_drop=rates)
    x = drawn(8, UNITS)
    stack.build(x.shape)
    kept = Chain([stack.layer_at(i) for i in range(DEPTH)], [r == 0 for r in rates])
    assert_allclose(stack(x, training=True), kept(x), atol=1e-6)
    every = DepthStack(
        keras.layers.Dense(UNITS), DEPTH, layer_drop=rates, return_sequences=True
    )
    y = array(every(x, training=True))
    np.testing.assert_array_equal(y[:, 1], y[:, 0])
    assert np.abs(y[:, 2] - y[:, 1]).max() > 1e-2


def test_each_call_draws_anew_and_at_the_rate():
    stack = DepthStack(keras.layers.Dense(UNITS), DEPTH, layer_drop=[0.2, 0.9] * 3)
    share = np.mean([_drawn_by(stack) for _ in range(400)], axis=0)
    np.testing.assert_allclose(share, [0.8, 0.1] * 3, atol=0.08)  # 4 deviations


def _drawn_by(stack):
    return array(_layer_drop.drawn(stack.layer_drop, DEPTH, stack.seed_generator))


@register
class Eager(keras.layers.Layer):
    """Tells at each call, which a loop in Python does not trace."""

    calls = 0

    def build(self, input_shape):
        self.w = self.add_weight(shape=(), name="w")

    def call(self, x):
        Eager.calls += 1
        return x * self.w


@pytest.mark.skipif(not IS_TORCH, reason="the others trace a layer once")
def test_pytorch_does_not_call_what_is_skipped():
    stack = DepthStack(Eager(), 10, layer_drop=[1] * 9 + [0])
    stack.build((None, 2))
    Eager.calls = 0
    stack(np.ones((1, 2), "float32"), training=True)
    assert Eager.calls <= 2  # once for its shapes


@pytest.mark.skipif(IS_TORCH, reason="it has no compiler")
def test_a_skipped_layer_is_within_a_condition():
    """What is compiled has a branch, by which it can do without the product."""
    stack = DepthStack(keras.layers.Dense(UNITS), DEPTH, layer_drop=0.5)
    x = ops.convert_to_tensor(drawn(8, UNITS))
    stack(x, training=True)

    def step(x):
        return _backend.gradients(lambda t: ops.sum(stack(t[0], training=True)), [x])[0]

    if keras.backend.backend() == "jax":
        import jax

        with keras.StatelessScope():
            program = str(jax.make_jaxpr(step)(x))
        inside = program.split(" cond[")
        assert len(inside) > 2  # forwards and backwards
        assert "dot_general" not in inside[0]
    else:
        import tensorflow as tf

        graph = tf.function(step).get_concrete_function(x).graph.as_graph_def()
        kinds = {node.op for f in graph.library.function for node in f.node_def}
        assert kinds & {"If", "StatelessIf"}


def test_it_is_trained_and_saved(tmp_path):
    x = drawn(16, UNITS)
    keras.utils.set_random_seed(0)
    stack = DepthStack(OrthogonalDense(UNITS, "gp_tanh"), DEPTH, layer_drop=0.3)
    model = keras.Sequential([keras.Input((UNITS,)), stack])
    model.compile("adam", "mse", jit_compile=HAS_XLA)
    losses = [model.train_on_batch(x, x) for _ in range(6)]
    assert len({round(float(loss), 5) for loss in losses}) > 3
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].layer_drop == 0.3
    np.testing.assert_array_equal(*(m.predict(x, verbose=0) for m in (model, loaded)))
    loaded.train_on_batch(x, x)


@pytest.mark.parametrize("rates", [0.2, 0, [0.0, 0.5, 1.0]])
def test_configuration(rates):
    stack = DepthStack(keras.layers.Dense(4), 3, layer_drop=np.array(rates))
    config = stack.get_config()
    again = DepthStack.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.layer_drop == (tuple(rates) if isinstance(rates, list) else rates)


@pytest.mark.parametrize(
    "rates", [-0.1, 1.5, float("nan"), [0.1, 0.2], [[0.1] * 3], "0.1", True, [None] * 3]
)
def test_rates_that_cannot_be(rates):
    with pytest.raises(ValueError, match=r"`layer_drop` must be a rate.* depth=3"):
        DepthStack(keras.layers.Dense(4), 3, layer_drop=rates)


@register
class WithMore(keras.layers.Layer):
    def build(self, input_shape):
        self.w = self.add_weight(shape=(), name="w")

    def call(self, x):
        return x + self.w, ops.sum(x)


def test_a_block_that_returns_more():
    for x in (np.ones((1, 2), "float32"), keras.Input((2,))):
        with pytest.raises(ValueError, match=r"`layer_drop` must be `None`.*WithMore"):
            DepthStack(WithMore(), 2, layer_drop=0.5)(x)
