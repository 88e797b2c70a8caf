import concurrent.futures
import contextlib
import json
import threading

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose
from backends import HAS_FLOAT64, HAS_XLA, IS_TORCH, NO_SAVED_MODEL
from catalogue import BLOCKS, Attention
from keras import ops
from layer_checker import check_layer

from keras_bsnn import _backend
from keras_bsnn.activations import DepthShaped
from keras_bsnn.depth import _loop, _per_layer
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import BatchNormDense, DepthStack, OrthogonalDense
from keras_bsnn.layers._orthogonal_dense import DenseRule
from keras_bsnn.ops import orthogonal

DEPTH, UNITS, BATCH = 3, 6, 8
IS_JAX = keras.backend.backend() == "jax"  # slow without jit
NAMES = (
    *("orthogonal dense", "tangent gradient", "batch norm dense", "dense with losses"),
    *("batch normalization", "dropout", "attention with dropout", "own layer"),
)


def block_of(name):
    return BLOCKS[name](UNITS)


def sample(name, size=BATCH):
    shape = (size, 4, UNITS) if "attention" in name else (size, UNITS)
    rng = np.random.default_rng(0)
    return rng.normal(size=shape), rng.normal(size=shape)


def model_of(layers, x, jit_compile):
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)
    model.compile(optimizer, "mse", jit_compile=jit_compile)
    return model


def both(block, x, jit_compile=False, **settings):
    """A model of a stack, and of its layers one by one."""
    stack = DepthStack(block, DEPTH, **settings)
    stacked = model_of([stack], x, jit_compile)
    layers = [stack.layer_at(i) for i in range(DEPTH)]
    # XLA takes long over many layers. JAX without it takes long over many steps, and
    # TensorFlow draws other random numbers.
    is_random = any("seed" in variable.path for variable in stack.variables)
    jit_compile &= IS_JAX or is_random
    return stack, stacked, layers, model_of(layers, x, jit_compile)


def loss_gradients(model, x, y):
    """Output, loss and gradients, by the variables' names and layers."""
    weights = model.trainable_variables

    def loss(values):
        state = zip(weights, values, strict=True)
        with keras.StatelessScope(state):
            y_pred = model(x, training=False)
        return ops.mean(ops.square(ops.subtract(y_pred, y)))

    found = _backend.gradients(loss, [_backend.read(w) for w in weights])
    return [*map(array, found)]


def assert_equal_states(stack, layers, atol):
    again = DepthStack.from_layers(layers)
    for ours, theirs in zip(stack.weights, again.weights, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs), atol=atol
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_equals_the_sequential_of_its_layers(name):
    """Predictions, gradients, losses, and the state after steps with momentum.

    The models step with XLA; the gradients are also taken without.
    """
    with _float64() if HAS_FLOAT64 else contextlib.nullcontext():
        x, y = (a.astype(keras.config.floatx()) for a in sample(name))
        tolerance = 1e-10 if HAS_FLOAT64 else 1e-5
        stack, stacked, layers, sequential = both(
            block_of(name), x, jit_compile=HAS_XLA
        )
        if not IS_JAX:  # which would compile each operation
            assert_equal_gradients(stacked, sequential, x, y, tolerance)
        assert_equal_in_training(stacked, sequential, x, y, tolerance)
        assert_equal_states(stack, layers, atol=tolerance)


def assert_equal_gradients(stacked, sequential, x, y, tolerance):
    ours = loss_gradients(stacked, x, y)
    theirs = iter(loss_gradients(sequential, x, y))
    per_layer = [[next(theirs) for _ in ours] for _ in range(DEPTH)]
    for gradient, expected in zip(ours, zip(*per_layer, strict=True), strict=True):
        np.testing.assert_allclose(gradient, np.stack(expected), atol=tolerance)


def assert_equal_in_training(stacked, sequential, x, y, tolerance):
    predictions = [m.predict(x, verbose=0) for m in (stacked, sequential)]
    np.testing.assert_allclose(*predictions, atol=tolerance)
    for batch in (slice(0, 4), slice(4, 8)) * 2:
        losses = [m.train_on_batch(x[batch], y[batch]) for m in (stacked, sequential)]
        np.testing.assert_allclose(*losses, rtol=tolerance)


class _float64:
    def __enter__(self):
        self.before = keras.config.floatx(), keras.config.dtype_policy()
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")

    def __exit__(self, *_):
        keras.config.set_floatx(self.before[0])
        keras.config.set_dtype_policy(self.before[1])


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_every", [1, DEPTH])
@pytest.mark.parametrize("name", ["orthogonal dense", "batch normalization", "dropout"])
def test_checkpoints_change_no_number(name, checkpoint_every):
    x, y = (a.astype("float32") for a in sample(name))
    stack, stacked, layers, sequential = both(
        block_of(name), x, IS_JAX, checkpoint_every=checkpoint_every
    )
    for model in (stacked, sequential):
        model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    assert_equal_states(stack, layers, atol=1e-5)


@pytest.mark.skipif(not IS_JAX, reason="TensorFlow runs one layer in a turn")
@pytest.mark.parametrize("depth", [1, 15, 67])
@pytest.mark.parametrize("name", ["orthogonal dense", "dense"])
def test_the_turns_of_a_gpu_change_no_number(name, depth, monkeypatch):
    import jax

    x, y = (a.astype("float32") for a in sample(name))
    scan, turns, found = jax.lax.scan, [], []

    def watched(*arguments, unroll, **kwargs):
        turns.append(unroll)
        return scan(*arguments, unroll=unroll, **kwargs)

    monkeypatch.setattr(jax.lax, "scan", watched)
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        keras.utils.set_random_seed(0)
        model = model_of([DepthStack(block_of(name), depth)], x, jit_compile=True)
        found.append(loss_gradients(model, x, y))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert depth == 1 or max(turns) > min(turns) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "checkpoint_every"),
    [("orthogonal dense", None), ("dropout", 1), ("own layer", None)],
)
def test_shards_change_no_number(name, checkpoint_every, monkeypatch):
    """On one device; tests/test_distributed_example.py has several."""
    x, y = (a.astype("float32") for a in sample(name))
    weights = []
    for shards in (1, DEPTH):
        monkeypatch.setattr(_backend, "shards", lambda _, shards=shards: shards)
        keras.utils.set_random_seed(0)
        stack = DepthStack(block_of(name), DEPTH, checkpoint_every=checkpoint_every)
        model = model_of([stack], x, jit_compile=IS_JAX)
        model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
        weights.append([ops.convert_to_numpy(v) for v in model.variables])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["orthogonal dense", "attention"])
def test_return_sequences(name):
    x, _ = (a.astype("float32") for a in sample(name))
    stack = DepthStack(block_of(name), DEPTH, return_sequences=True)
    outputs = stack(x, training=False)
    assert outputs.shape == stack.compute_output_shape(x.shape)
    h = x
    for i in range(DEPTH):
        h = stack.layer_at(i)(h, training=False)
        assert_allclose(outputs[:, i], h, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_each_output_has_its_gradient(jit_compile):
    x, _ = (a.astype("float32") for a in sample("dense"))
    block = OrthogonalDense(UNITS, "gp_tanh", kernel_constraint=None)
    stack = DepthStack(block, DEPTH, return_sequences=True)
    stacked = model_of([stack], x, jit_compile)
    layers = [stack.layer_at(i) for i in range(DEPTH)]
    inputs = h = keras.Input((UNITS,))
    outputs = [h := layer(h) for layer in layers]
    functional = keras.Model(inputs, ops.stack(outputs, axis=1))
    functional.compile(keras.optimizers.SGD(0.1), "mse")
    y = np.random.default_rng(1).normal(size=(BATCH, DEPTH, UNITS)).astype("float32")
    stacked.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    for model in (stacked, functional):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert_equal_states(stack, layers, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "checkpoint_every"),
    [
        ({"units": UNITS, "activation": "gp_tanh"}, None),
        ({"units": UNITS, "activation": "gp_elu", "tangent_gradient": True}, 2),
    ],
)
def test_it_is_a_good_layer(block, checkpoint_every, tmp_path):
    def make(**kwargs):
        dtype = kwargs.pop("dtype", None)
        block_of = OrthogonalDense(**block, dtype=dtype)
        return DepthStack(block_of, 4, checkpoint_every=checkpoint_every, **kwargs)

    check_layer(make, {}, (UNITS,), (UNITS,), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 7, 64, 130])
def test_gradient_by_chunks_of_any_depth(depth):
    """The fast rule, against the generic one."""
    x, y = (a.astype("float32") for a in sample("dense"))
    activation = DepthShaped("gelu", 200)
    found = []
    for function in (activation, lambda x: activation(x)):
        block = OrthogonalDense(UNITS, function)
        stack = DepthStack(block, depth)
        model = model_of([stack], x, False)
        if found:
            model.set_weights(found[0][0])
        gradients = loss_gradients(model, x, y)
        found.append((model.get_weights(), gradients))
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Halved(OrthogonalDense):
    """A subclass that computes something else than the rule which it inherits."""

    def call(self, inputs):
        return 0.5 * super().call(inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block_class", "trainable"), [(Halved, True), (OrthogonalDense, False)]
)
def test_a_rule_is_not_used_for_what_it_does_not_do(block_class, trainable):
    x, y = (a.astype("float32") for a in sample("dense"))
    block = block_class(UNITS, "gp_tanh", trainable=trainable)
    stack, stacked, layers, sequential = both(block, x)
    for model in (stacked, sequential):
        model.fit(x, y, verbose=0)
    assert_equal_states(stack, layers, atol=1e-6)
    np.testing.assert_allclose(
        stacked.predict(x, verbose=0), sequential.predict(x, verbose=0), atol=1e-5
    )


@pytest.mark.skipif(IS_TORCH, reason="PyTorch traces nothing")
def test_an_eager_call_is_traced_once():
    traced = []

    @keras.saving.register_keras_serializable("tests")
    class Counted(keras.layers.Dense):
        def call(self, x, training=None):
            traced.append(training)
            return super().call(x)

    stack = DepthStack(Counted(UNITS), 4)
    x = np.ones((2, UNITS), "float32")
    stack(x), stack(x, training=True)
    before = len(traced)
    stack(x), stack(2 * x, training=True)
    assert len(traced) == before
    assert {None, True} <= set(traced)


@pytest.mark.skipif(not IS_TORCH, reason="the compiler of PyTorch")
def test_a_compiler_does_not_take_the_loop_apart():
    import torch

    seen = []

    @keras.saving.register_keras_serializable("tests")
    class Sees(keras.layers.Dense):
        def call(self, x):
            seen.append(torch.compiler.is_compiling())
            return super().call(x)

    stack, x = DepthStack(Sees(UNITS), 4), ops.ones((2, UNITS))
    expected = stack(x)
    found = torch.compile(lambda x: 2 * stack(x), backend="eager")(x)
    assert_allclose(found, 2 * expected, atol=1e-6)
    assert len(seen) >= 8 and not any(seen)


def test_layers_start_differently():
    block = keras.Sequential(
        [keras.layers.Dense(UNITS), OrthogonalDense(UNITS), keras.layers.Dropout(0.5)]
    )
    stack = DepthStack(block, 50)
    stack.build((None, UNITS))
    for weight in stack.weights:
        values = ops.convert_to_numpy(weight).astype("float64")
        if "bias" not in weight.name:
            assert len(np.unique(values.reshape(50, -1), axis=0)) == 50
    kernel = ops.convert_to_numpy(stack.weights[0])
    limit = np.sqrt(6 / (2 * UNITS))
    assert np.abs(kernel).max() <= limit and np.abs(kernel).max() > 0.95 * limit
    assert float(ops.max(orthogonal.orthogonality_error(stack.weights[2]))) < 1e-5


def test_a_seed_repeats_the_weights():
    def weights(seed):
        initializer = keras.initializers.HeNormal(seed)
        stack = DepthStack(keras.layers.Dense(3, kernel_initializer=initializer), 4)
        stack.build((None, 3))
        return stack.get_weights()[0]

    np.testing.assert_array_equal(weights(1), weights(1))
    assert np.abs(weights(1) - weights(2)).min() > 0


def test_what_is_drawn_alike_is_compiled_once():
    """And nothing is drawn that nobody sees: for the block that stands for a layer."""
    stack = DepthStack(keras.Sequential([keras.layers.Dense(5) for _ in range(3)]), 4)
    before = _per_layer._drawing.cache_info().misses
    stack.build((None, 5))
    assert _per_layer._drawing.cache_info().misses == before + 1
    assert len(np.unique(ops.convert_to_numpy(stack.weights[0]))) == 4 * 5 * 5
    for weight in stack._built.template.weights:
        assert not ops.convert_to_numpy(weight).any()


@pytest.mark.parametrize("draw", [keras.random.normal, None])
def test_an_initializer_keeps_what_it_was_given(draw):
    """A class of a user, without `get_config`, which may draw by NumPy."""

    class Wide(keras.initializers.Initializer):
        def __init__(self, scale=1.0, seed=None):
            self.scale, self.seed = scale, seed

        def __call__(self, shape, dtype=None):
            if draw:
                return self.scale * draw(shape, dtype=dtype, seed=self.seed)
            return self.scale * np.random.default_rng(self.seed).normal(size=shape)

    for seed in (None, 1):
        block = keras.layers.Dense(8, kernel_initializer=Wide(100.0, seed))
        stack = DepthStack(block, 4)
        stack.build((None, 8))
        kernel = stack.get_weights()[0]
        assert 80 < kernel.std() < 120
        assert len(np.unique(kernel[:, 0, 0])) == 4


def test_a_model_whose_initializer_would_be_lost():
    class Wide(keras.initializers.Initializer):
        def __init__(self, scale):
            self.scale = scale

        def __call__(self, shape, dtype=None):
            return ops.full(shape, self.scale, dtype)

    dense = keras.layers.Dense(4, kernel_initializer=Wide(2.0))
    model = keras.Sequential([keras.Input((4,)), dense])
    with pytest.raises(ValueError, match=r"`kernel_initializer`.*get_config"):
        DepthStack(model, 2).build((None, 4))


def test_an_initializer_of_ones_own():
    def counting(shape, dtype=None):
        counting.calls += 1
        return ops.full(shape, counting.calls, dtype=dtype)

    counting.calls = 0
    stack = DepthStack(keras.layers.Dense(2, kernel_initializer=counting), 3)
    stack.build((None, 2))
    kernel = stack.get_weights()[0]
    assert kernel[:, 0, 0].tolist() == [2, 3, 4]  # the block had the first


def test_dropout_draws_anew_in_each_layer_and_call():
    block = keras.Sequential(
        [
            keras.layers.Dense(
                400, kernel_initializer="identity", trainable=False, use_bias=False
            ),
            keras.layers.Dropout(0.5),
        ]
    )
    stack = DepthStack(block, 3)
    x = np.ones((2, 400), "float32")
    first, second = (ops.convert_to_numpy(stack(x, training=True)) for _ in "12")
    np.testing.assert_allclose(
        [np.mean(first > 0), np.mean(second > 0)], 1 / 8, atol=0.05
    )
    assert np.mean((first > 0) & (second > 0)) < 0.05
    np.testing.assert_array_equal(stack(x, training=False), x)


@pytest.mark.slow
def test_masks_reach_every_layer():
    x = np.random.default_rng(0).normal(size=(2, 4, UNITS)).astype("float32")
    x[:, 2:] = 0
    stack = DepthStack(Attention(), 3)
    model = keras.Sequential([keras.Input((4, UNITS)), keras.layers.Masking(), stack])
    y = model.predict(x, verbose=0)
    alone = keras.Sequential(
        [keras.Input((4, UNITS)), keras.layers.Masking()]
        + [stack.layer_at(i) for i in range(3)]
    )
    np.testing.assert_allclose(y, alone.predict(x, verbose=0), atol=1e-5)
    unmasked = ops.convert_to_numpy(stack(x))
    assert np.abs(unmasked[:, :2] - y[:, :2]).max() > 1e-3


@pytest.mark.parametrize("jit_compile", [False, True])
def test_mixed_precision_keeps_float32_gradients(jit_compile):
    """Weights and their states stay float32: a step below bfloat16 is not lost."""
    block = keras.layers.Dense(4, use_bias=False, dtype="mixed_bfloat16")
    stack = DepthStack(block, 3)
    x = np.full((2, 4), 1e-3, "float32")
    model = keras.Sequential([keras.Input((4,)), stack])
    model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=jit_compile)
    before = model.get_weights()[0]
    model.fit(x, np.ones((2, 4)), verbose=0)
    assert {w.dtype for w in stack.weights} == {"float32"}
    change = np.abs(model.get_weights()[0] - before)
    assert 0 < np.median(change) < 1e-4
    assert keras.backend.standardize_dtype(stack(x).dtype) == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("orthogonal dense", 2),
        ("tangent gradient", None),
        ("own layer", None),
    ],
)
def test_a_gradient_penalty(name, chunk, monkeypatch):
    """The gradient of the norm of a gradient, which differentiates twice.

    Of gradients that are projected, the tangent parts are compared: the normal ones
    depend on how a backend differentiates, and the retraction undoes them.
    """
    depth = 2 * (chunk or 1)
    stack = DepthStack(block_of(name), depth)
    if chunk:
        monkeypatch.setattr(type(stack.block.depth_rule()), "chunk", chunk)
    x = sample(name, 2)[0].astype("float32")
    stack(x)
    layers = [stack.layer_at(i) for i in range(depth)]
    variables = [v for layer in layers for v in layer.trainable_variables]
    plain, compiled = (
        penalty_gradients(stack, stack.trainable_variables, x, jit_compile)
        for jit_compile in (False, HAS_XLA)
    )
    theirs = penalty_gradients(keras.Sequential(layers), variables, x, False)
    count = len(stack.trainable_variables)
    for i, ours in enumerate(zip(plain, compiled, strict=True)):
        found = [*ours, np.stack([np.asarray(g) for g in theirs[i::count]])]
        if name == "tangent gradient" and found[-1].ndim == 3:
            kernel = _backend.read(stack.trainable_variables[i])
            found = [
                array(orthogonal.project_tangent(kernel, ops.convert_to_tensor(g)))
                for g in found
            ]
        scale = max(1.0, np.abs(found[-1]).max())
        for gradient in found[:-1]:
            np.testing.assert_allclose(gradient / scale, found[-1] / scale, atol=1e-4)


def penalty_gradients(network, variables, x, jit_compile):
    def function(x, *values):
        def penalty(values):
            with keras.StatelessScope(zip(variables, values, strict=True)):
                (of_x,) = _backend.gradients(
                    lambda tensors: ops.sum(ops.square(network(tensors[0]))), [x]
                )
            return ops.square(ops.norm(of_x) - 1)

        return _backend.gradients(penalty, [*values])

    values = map(_backend.read, variables)
    return _backend.compiled(function, jit_compile)(ops.convert_to_tensor(x), *values)


@pytest.mark.slow
def test_ten_thousand_layers_are_saved_and_served(tmp_path):
    import time

    activation = DepthShaped("gelu", 10_000)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            DepthStack(OrthogonalDense(8, activation, use_bias=False), 10_000),
        ]
    )
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    start = time.perf_counter()
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), expected)
    if IS_TORCH:
        pytest.skip(NO_SAVED_MODEL)
    model.export(tmp_path / "served", verbose=False)
    assert time.perf_counter() - start < 60
    import tensorflow as tf

    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(x), expected, atol=1e-4)
    np.testing.assert_allclose(served.serve(x[:1]), expected[:1], atol=1e-4)


def test_configuration():
    stack = DepthStack(OrthogonalDense(4, "gp_tanh"), 3, checkpoint_every=3, name="s")
    config = stack.get_config()
    json.dumps(config)
    stack(np.ones((1, 4), "float32"))
    again = DepthStack.from_config(stack.get_config())
    assert again.get_config() == config
    assert (again.depth, again.checkpoint_every, again.name) == (3, 3, "s")


def test_names_and_summary(capsys):
    block = keras.Sequential(
        [
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(4, name="dense"),
        ]
    )
    model = keras.Sequential([keras.Input((4,)), DepthStack(block, 3, name="deep")])
    assert [w.path for w in model.weights] == [
        f"sequential_1/deep/{name}".replace("sequential_1", model.layers[0].path[:-5])
        for name in (
            "norm_gamma",
            "norm_beta",
            "dense_kernel",
            "dense_bias",
            "norm_moving_mean",
            "norm_moving_variance",
        )
    ]
    model.summary()
    printed = capsys.readouterr().out
    assert "deep (DepthStack)" in printed and "108" in printed


def test_freezing():
    stack = DepthStack(OrthogonalDense(4), 3)
    model = model_of([stack], np.ones((1, 4)), False)
    stack.trainable = False
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(np.ones((4, 4)), np.zeros((4, 4)), verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "block", [lambda: keras.layers.BatchNormalization(), lambda: BatchNormDense(4)]
)
def test_a_frozen_stack_keeps_its_statistics(block):
    x = 3 * np.random.default_rng(0).normal(size=(32, 4)).astype("float32") + 1
    stack = DepthStack(block(), 2)
    expected = stack(x, training=False)
    before = stack.get_weights()
    stack.trainable = False
    assert_allclose(stack(x, training=True), expected, atol=1e-6)
    for a, b in zip(before, stack.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    stack.trainable = True
    assert np.abs(array(stack(x, training=True) - expected)).max() > 0.1


def test_a_stack_in_a_layer_without_build():
    class Residual(keras.layers.Layer):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def call(self, x):
            return x + self.body(x)

    x = ops.ones((2, 4))
    stack = DepthStack(keras.layers.Dense(4), 3)
    y = Residual(stack)(x)
    assert np.unique(stack.get_weights()[0][:, 0, 0]).size == 3
    assert_allclose(y, x + stack(x), atol=1e-6)


def test_threads_build_stacks_at_once():
    """Each waits within `build` for the other to be within its own."""
    inside = threading.Barrier(2, timeout=60)

    class Slow(keras.layers.Dense):
        def build(self, input_shape):
            inside.wait()
            super().build(input_shape)

    def build(seed):
        initializer = keras.initializers.GlorotUniform(seed)
        stack = DepthStack(Slow(4, kernel_initializer=initializer), 2)
        stack.build((None, 4))
        return stack.get_weights()[0]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        ones, twos = pool.map(build, (1, 2))
    for seed, found in ((1, ones), (2, twos)):
        initializer = keras.initializers.GlorotUniform(seed)
        stack = DepthStack(keras.layers.Dense(4, kernel_initializer=initializer), 2)
        stack.build((None, 4))
        np.testing.assert_array_equal(stack.get_weights()[0], found)


def test_names_of_parts_that_end_as_the_block(tmp_path):
    parts = [keras.layers.Dense(4, name=f"{name}_block") for name in ("conv", "dense")]
    stack = DepthStack(keras.Sequential(parts, name="block"), 3)
    model = keras.Sequential([keras.Input((4,)), stack])
    names = [
        f"{name}_block_{w}" for name in ("conv", "dense") for w in ("kernel", "bias")
    ]
    assert [w.name for w in stack.weights] == names
    model.save(tmp_path / "model.h5")


def test_integers_of_images():
    stack = DepthStack(OrthogonalDense(4), 3)
    with pytest.raises(ValueError, match="floating point"):
        stack(np.zeros((2, 4), "uint8"))


class Random(keras.layers.Layer):
    def build(self, input_shape):
        self.w = self.add_weight(shape=(1,), name="w")

    def call(self, x):
        return x + keras.random.normal(ops.shape(x)) * self.w


class Plain(keras.layers.Layer):
    def build(self, input_shape):
        self.w = keras.Variable(np.ones(input_shape[-1]), name="w")

    def call(self, x):
        return x * self.w


def built(units):
    layer = keras.layers.Dense(units)
    layer.build((None, units))
    return layer


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda: keras.layers.Dense(3), "shape of its input"),
        (lambda: keras.layers.ReLU(), "must have weights"),
        (lambda: built(4), "has weights already"),
        (lambda: keras.layers.Dense, "must be a Keras layer"),
        (lambda: Plain(), "add_weight"),
        # On JAX, Keras itself refuses.
        (lambda: Random(), "change no variable but its own|Random.call"),
    ],
)
def test_blocks_that_cannot_be_stacked(block, message):
    with pytest.raises(ValueError, match=message):
        DepthStack(block(), 2)(np.ones((2, 4), "float32"))


def test_a_shared_block():
    block = keras.layers.Dense(3)
    first, second = DepthStack(block, 2), DepthStack(block, 3)
    first.build((None, 3))
    with pytest.raises(ValueError, match="must not be shared"):
        second.build((None, 3))
    with pytest.raises(ValueError, match="in another stack"):
        DepthStack(block, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "`depth`"),
        ({"depth": 2.0}, "`depth`"),
        ({"checkpoint_every": 0}, "`checkpoint_every`"),
        ({"checkpoint_every": 3}, "divisor"),
        ({"checkpoint_every": 8}, "`checkpoint_every`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthStack(keras.layers.Dense(3), **{"depth": 4, **arguments})


def test_layers_that_are_not_there():
    stack = DepthStack(keras.layers.Dense(3), 2)
    with pytest.raises(ValueError, match="not built"):
        stack.layer_at(0)
    stack.build((None, 3))
    for index in (2, -3):
        with pytest.raises(IndexError, match="`index`"):
            stack.layer_at(index)


def test_layers_that_are_not_equal():
    tanh = keras.layers.Dense(3, "tanh")
    tanh.build((None, 3))
    with pytest.raises(ValueError, match="equal"):
        DepthStack.from_layers([built(3), tanh])
    with pytest.raises(ValueError, match="built layers"):
        DepthStack.from_layers([])
    with pytest.raises(ValueError, match="built layers"):
        DepthStack.from_layers([keras.layers.Dense(3)])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow"
)
def test_replicas_keep_one_moving_mean(replicas):
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    x[4:] += 10
    with replicas.scope():
        block = keras.layers.BatchNormalization(momentum=0.0)
        stack = DepthStack(block, 2)
        model = keras.Sequential([keras.Input((4,)), stack])
        model.compile("sgd", "mse", jit_compile=False)
    model.fit(x, x, batch_size=8, shuffle=False, verbose=0)
    found = stack.get_weights()[2][0]
    np.testing.assert_allclose(found, x.mean(0), atol=1e-4)


def test_a_functional_block_in_mixed_precision():
    """It returns float32, as its input is not cast."""
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(4, dtype="mixed_bfloat16")
    block = keras.Model(inputs, inputs + dense(inputs))
    stack = DepthStack(block, 3, dtype="mixed_bfloat16")
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    y, expected = stack(x), x
    for i in range(3):
        expected = stack.layer_at(i)(expected)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert_allclose(ops.cast(y, "float32"), expected, rtol=1e-2, atol=3e-2)


def gradients_of_chunks():
    """Of a new model, as a stack keeps what it traced."""
    kernel = HaarOrthogonal(seed=1)
    dense = OrthogonalDense(8, "gp_tanh", kernel_initializer=kernel)
    stack = DepthStack(dense, 128)  # 2 chunks of 64
    model = keras.Sequential([keras.Input(batch_shape=(4, 8)), stack])
    found = loss_gradients(model, *keras.random.normal((2, 4, 8), seed=0))
    return list(map(ops.convert_to_numpy, found))


def test_few_chunks_of_large_kernels_have_the_same_gradients(monkeypatch):
    turns, in_python, looped = [], _backend.loop_in_python, gradients_of_chunks()

    def counted(step, carry, count, **kwargs):
        turns.append(count)
        return in_python(step, carry, count, **kwargs)

    monkeypatch.setattr(_backend, "loop_in_python", counted)
    monkeypatch.setattr(_loop, "LARGE", 128 * 8 * 8)
    for found, expected in zip(gradients_of_chunks(), looped, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert 2 in turns


@pytest.mark.parametrize("at_once", [1, 2, 5])  # 5 does not divide the depth
def test_chunks_of_large_batches_are_short_and_have_the_same_gradients(
    at_once, monkeypatch
):
    long, sizes, prepare = gradients_of_chunks(), [], DenseRule.prepare

    def counted(rule, entering, kept, layers):
        sizes.append(kept.shape[0])
        return prepare(rule, entering, kept, layers)

    monkeypatch.setattr(DenseRule, "prepare", counted)
    monkeypatch.setattr(_loop, "LARGE", at_once * 4 * 8)
    for found, expected in zip(gradients_of_chunks(), long, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert set(sizes) == {{5: 4}.get(at_once, at_once)}
