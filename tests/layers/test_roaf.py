"""ROAF is keras.layers.RNN(ROAFCell), faster: outputs, gradients, states, masks."""

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, assert_array_equal
from backends import HAS_XLA, writes_saved_model
from layer_checker import (
    check_export,
    check_layer,
    check_mixed_precision,
    check_reload,
    model_of,
)

from keras_bsnn import models
from keras_bsnn.layers import ROAF, ROAFCell

needs_dynamic_shapes = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="loops on JAX have a fixed length"
)


DROPOUT = {"dropout": 0.5, "recurrent_dropout": 0.25, "seed": 3}


def data(steps=12, seed=0):
    return np.random.default_rng(seed).normal(size=(6, steps, 3)).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "output_shape"),
    [
        ({"units": 5, "alpha": 0.5, "return_sequences": True}, (12, 5)),
        ({"units": 4, "alpha": 0.8, "checkpoint_every": 4, "beta": 0.5}, (4,)),
        (
            {
                "units": 4,
                "alpha": 0.2,
                "filter": "shift",
                "activation": "softmax",
                "use_bias": False,
            },
            (4,),
        ),
        (
            {
                "units": 4,
                "alpha": 0.8,
                "filter": "rotations",
                "go_backwards": True,
                "recurrent_constraint": "unit_norm",
            },
            (4,),
        ),
    ],
)
def test_it_is_a_good_layer(arguments, output_shape, tmp_path):
    check_layer(ROAF, arguments, (12, 3), output_shape, tmp_path)


def pair(filter="haar", masked=False, activation="tanh", **kwargs):
    """Models of the layer, and of a loop over its cell, with the same weights."""
    arguments = {"units": 7, "alpha": 0.9, "filter": filter, "activation": activation}
    arguments["filter_seed"] = 3
    of_cell = ("dropout", "recurrent_dropout", "seed")
    arguments |= {name: kwargs.pop(name) for name in of_cell if name in kwargs}
    every = kwargs.pop("checkpoint_every", None)
    layers = (
        ROAF(**arguments, **kwargs, checkpoint_every=every),
        keras.layers.RNN(ROAFCell(**arguments), **kwargs),
    )
    found = []
    for layer in layers:
        inputs = keras.Input((12, 3))
        x = keras.layers.Masking(0.0)(inputs) if masked else inputs
        found.append(keras.Model(inputs, layer(x)))
    found[1].set_weights(found[0].get_weights())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "masked"),
    [
        ({}, True),
        ({"return_sequences": True}, False),
        (
            {"filter": "rotations", "go_backwards": True, "return_sequences": True},
            True,
        ),
        (
            {"filter": "permutation", "checkpoint_every": 4, "return_sequences": True},
            False,
        ),
        ({"filter": "shift", "activation": "relu", "return_sequences": True}, False),
        ({"filter": "signed_haar"}, True),
        ({"activation": "softmax", "return_sequences": True}, True),
        ({**DROPOUT, "return_sequences": True}, True),
        (
            {
                "filter": "shift",
                "recurrent_dropout": 0.4,
                "seed": 5,
                "checkpoint_every": 3,
            },
            True,
        ),
    ],
)
def test_it_is_a_loop_over_its_cell(arguments, masked):
    x = data()
    if masked:
        x[:, 9:] = 0
        x[2:, 4] = 0
    models = pair(masked=masked, **arguments)
    before = [array(model(x)) for model in models]
    np.testing.assert_allclose(*before, atol=1e-6)
    # XLA draws other numbers than TensorFlow does.
    compiled = (masked, masked) if "seed" in arguments else (True, False)
    for model, jit_compile in zip(models, compiled, strict=True):
        jit_compile &= HAS_XLA
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=jit_compile)
        model.fit(x, -before[0], epochs=2, batch_size=6, shuffle=False, verbose=0)
    after = [model.predict(x, verbose=0) for model in models]
    np.testing.assert_allclose(*after, atol=1e-5)
    assert np.abs(after[0] - before[0]).max() > 5e-5


@pytest.mark.parametrize("activation", ["tanh", "softmax"])  # of both loops
def test_dropout_has_one_mask_for_all_steps(activation):
    """Outputs equal a loop in Python with the given masks."""
    x = data()
    arguments = {"activation": activation, "return_sequences": True}
    layer = ROAF(5, 0.8, **arguments, **DROPOUT)
    layer.build(x.shape)
    seeds = keras.random.SeedGenerator(DROPOUT["seed"])
    of_inputs, of_state = (
        keras.random.dropout(keras.ops.ones(shape), rate, seed=seeds)
        for shape, rate in (((6, 3), 0.5), ((6, 5), 0.25))
    )
    assert {0.0, 2.0} == {*np.asarray(of_inputs).ravel()}
    cell, h, expected = layer.cell, keras.ops.zeros((6, 5)), []
    for step in keras.ops.convert_to_tensor(np.swapaxes(x, 0, 1)):
        inner = keras.ops.matmul(step * of_inputs, cell.kernel) + cell.bias
        inner += keras.ops.matmul(h * of_state, cell.recurrent_kernel)
        h = 0.8 * cell.filtered(h) + 0.2 * cell.activation(inner)
        expected.append(h)
    found = layer(x, training=True)
    assert_allclose(found, keras.ops.stack(expected, 1), atol=1e-6)
    assert np.abs(array(layer(x, training=True) - found)).max() > 1e-3  # other masks


def test_dropout_keeps_the_expectation():
    """Of one step without activation, which is affine in either mask."""
    x, state = data(1)[:1], np.linspace(-2, 2, 5, dtype="float32")[None]
    layer = ROAF(5, 0.5, activation=None, **DROPOUT)
    exact = array(layer(x, initial_state=[state]))
    many = [np.repeat(z, 20_000, axis=0) for z in (x, state)]
    found = array(layer(many[0], initial_state=[many[1]], training=True))
    error = found.std(axis=0) / np.sqrt(len(found))
    assert error.min() > 0
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - exact[0]), 5 * error)


def test_dropout_does_nothing_in_evaluation():
    x = data()
    layer = ROAF(5, 0.8, **DROPOUT)
    y = layer(x)
    config = layer.get_config()
    assert {name: config[name] for name in DROPOUT} == DROPOUT
    plain = ROAF.from_config({**config, "dropout": 0.0, "recurrent_dropout": 0.0})
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    assert_array_equal(plain(x), y)
    assert_array_equal(plain(x, training=True), y)


@pytest.mark.slow
def test_dropout_is_saved_and_exported(tmp_path):
    arguments = {"units": 5, "alpha": 0.8, **DROPOUT}
    check_mixed_precision(ROAF, arguments, data())
    model = model_of(ROAF(**arguments), data(), jit_compile=HAS_XLA)
    model.fit(data(), np.ones((6, 5)), verbose=0)
    check_reload(model, data(), tmp_path)
    check_export(model, data(), tmp_path)


def test_a_state_carried_on_is_one_long_call():
    x = data(30)
    layer = ROAF(5, 0.99, return_sequences=True, return_state=True)
    whole, last = layer(x)
    first, state = layer(x[:, :11])
    second, end = layer(x[:, 11:], initial_state=[state])
    together = keras.ops.concatenate([first, second], axis=1)
    assert_allclose(together, whole, atol=1e-6)
    assert_allclose(end, last, atol=1e-6)


def test_stateful():
    x = data(30)
    layer = ROAF(5, 0.99, stateful=True)
    expected = ROAF.from_config({**layer.get_config(), "stateful": False})
    layer.build(x.shape)
    expected.build(x.shape)
    expected.set_weights([w for w in layer.get_weights() if w.shape != (6, 5)])
    for part in np.split(x, 3, axis=1):
        found = layer(part)
    assert_allclose(found, expected(x), atol=1e-6)
    layer.reset_state()
    assert_allclose(layer(x), expected(x), atol=1e-6)


def test_in_both_directions(tmp_path):
    x = data()
    layer = keras.layers.Bidirectional(ROAF(4, 0.9, return_sequences=True))
    model = keras.Sequential([keras.Input((12, 3)), layer])
    y = model.predict(x, verbose=0)
    assert y.shape == (6, 12, 8)
    backward = array(layer.backward_layer(x))[:, ::-1]
    np.testing.assert_allclose(y[..., 4:], backward, atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), y)


@needs_dynamic_shapes
@writes_saved_model
def test_sequences_of_any_length(tmp_path):
    """Trained on one length, and served with others, with a state carried on."""
    import tensorflow as tf

    inputs, state = keras.Input((None, 3)), keras.Input((5,))
    layer = ROAF(5, 0.9, return_state=True)
    model = keras.Model([inputs, state], layer(inputs, initial_state=[state]))
    x = data(20)
    zero = np.zeros((6, 5), "float32")
    expected, _ = model([x, zero])
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(tmp_path / "model")
    _, middle = served.serve([x[:, :3], zero])
    found, _ = served.serve([x[:, 3:], middle])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    alone, _ = served.serve([x[:1], zero[:1]])
    np.testing.assert_allclose(alone, expected[:1], atol=1e-6)


@needs_dynamic_shapes
def test_training_with_sequences_of_any_length():
    model = models.roaf_rnn(4, outputs=2, input_shape=(None, 3))
    model.compile("sgd", "mse", jit_compile=False)
    for steps in (5, 9):
        history = model.fit(data(steps), np.ones((6, 2)), verbose=0).history
        assert np.isfinite(history["loss"][0])


def test_bfloat16_does_not_lose_alpha():
    """1 - 1e-3 is 1 in bfloat16: the layer keeps its state in float32."""
    x = data(2000)
    layers = [ROAF(8, 0.999, dtype=dtype) for dtype in ("float32", "mixed_bfloat16")]
    for layer in layers:
        layer.build(x.shape)
    layers[1].set_weights(layers[0].get_weights())
    exact, rounded = (
        keras.Sequential([layer]).predict(x, verbose=0).astype("float32")
        for layer in layers
    )
    assert np.linalg.norm(rounded - exact) < 0.05 * np.linalg.norm(exact)


def test_the_state_is_read_at_size_one():
    """The factor of `roaf_rnn` makes it so, for inputs that saturate the activation."""
    model = models.roaf_rnn(64, alpha=0.999, input_shape=(5000, 1), seed=0)
    x = 100 * np.random.default_rng(0).normal(size=(8, 5000, 1)).astype("float32")
    read = keras.Model(model.inputs, model.layers[1].output).predict(x, verbose=0)
    assert 0.5 < np.sqrt(np.mean(np.square(read))) < 1.5


@pytest.mark.parametrize("layer", [ROAF, ROAFCell])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"units": -1, "alpha": 0.5}, "`units` must be an integer >= 1"),
        ({"units": 4, "alpha": -0.5}, "`alpha` must be a number in"),
        ({"units": 4, "alpha": 0.5, "filter": None}, "`filter` must be one of"),
        ({"units": 4, "alpha": 0.5, "dropout": 1}, "`dropout` must be a number in"),
        ({"units": 4, "alpha": 0.5, "seed": -1}, "`seed` must be an integer in"),
    ],
)
def test_wrong_arguments(layer, arguments, words):
    with pytest.raises(ValueError, match=words):
        layer(**arguments)


def test_a_wrong_checkpoint():
    with pytest.raises(ValueError, match="`checkpoint_every` must be a divisor"):
        ROAF(4, 0.5, checkpoint_every=5)(data())
