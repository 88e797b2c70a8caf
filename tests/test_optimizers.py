import functools
import math

import keras
import numpy as np
import pytest
from backends import HAS_XLA
from versions import IS_KERAS_3_10, not_on_keras_3_10

from keras_bsnn import callbacks, manifolds, optimizers
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.ops import orthogonal
from keras_bsnn.optimizers import Stiefel, StiefelMuon
from keras_bsnn.optimizers._turns import Turns

INNER = {
    "sgd": lambda **kw: keras.optimizers.SGD(0.05, momentum=0.9, **kw),
    "adam": lambda **kw: keras.optimizers.Adam(0.01, **kw),
    "muon": lambda **kw: keras.optimizers.Muon(0.01, **kw),
    "lion": lambda **kw: keras.optimizers.Lion(0.003, **kw),
}
ALL = {
    **{name: lambda make=make: Stiefel(make()) for name, make in INNER.items()},
    "stiefel_muon": lambda: StiefelMuon(0.1),
}
is_tensorflow = keras.backend.backend() == "tensorflow"
# Without jit, JAX would compile the loop of a stack anew in every step.
JIT = [False, True] if is_tensorflow else [HAS_XLA]


def network(depth=3, units=8, tangent_gradient=False, **settings):
    keras.utils.set_random_seed(0)
    block = OrthogonalDense(
        units, "gp_tanh", tangent_gradient=tangent_gradient, **settings
    )
    return keras.Sequential(
        [
            keras.Input((6,)),
            OrthogonalDense(units, "gp_tanh", **settings),
            DepthStack(block, depth),
            keras.layers.Dense(3, **settings),
        ]
    )


def data(batches=8, size=16):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batches * size, 6)).astype("float32")
    return x, np.argmax(x[:, :3] + 0.3 * x[:, 3:], axis=1)


def fit(model, optimizer=None, epochs=1, jit_compile=JIT[0], **settings):
    if optimizer is not None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, jit_compile=jit_compile)
    if model.built:  # or TensorFlow traces twice
        model.optimizer.build(model.trainable_variables)
    history = model.fit(
        *data(), batch_size=16, epochs=epochs, shuffle=False, verbose=0, **settings
    )
    return history.history["loss"]


def errors(model):
    kernels = manifolds.constrained(model.trainable_variables)
    return [float(keras.ops.max(manifold.error(k))) for k, manifold in kernels]


def values(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


def assert_close(these, those, atol=1e-6):
    for a, b in zip(these, those, strict=True):
        assert np.allclose(a, b, atol=atol), np.abs(a - b).max()


@functools.cache
def after_an_epoch(name):
    """A model that was trained, its loss, and its weights; tests share it."""
    model = network()
    losses = fit(model, ALL[name]())
    return model, losses, model.get_weights()


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_it_trains_and_is_resumed_as_if_unbroken(tmp_path, name):
    unbroken, losses, _ = after_an_epoch(name)
    unbroken.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    assert type(second.optimizer) is type(unbroken.optimizer)
    assert second.optimizer.get_config() == unbroken.optimizer.get_config()
    for model in (unbroken, second):
        fit(model)
    assert_close(second.get_weights(), unbroken.get_weights(), atol=1e-6)
    assert_close(
        values(second.optimizer.variables), values(unbroken.optimizer.variables)
    )
    assert fit(second, epochs=4)[-1] < 0.8 * losses[0]
    assert max(errors(second)) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not is_tensorflow, reason="only TensorFlow runs with and without")
@pytest.mark.parametrize("name", ["adam", "muon", "stiefel_muon"])
def test_it_trains_with_jit_as_without(name):
    model = network()
    fit(model, ALL[name](), jit_compile=True)
    # Muon's steps are signs, which rounding may turn.
    atol = 1e-2 if name == "muon" else 1e-4
    assert_close(model.get_weights(), after_an_epoch(name)[2], atol=atol)
    assert max(errors(model)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "jit_compile"), [("sgd", JIT[-1]), ("stiefel_muon", JIT[0])]
)
def test_it_trains_in_mixed_precision(name, jit_compile):
    model = network(dtype="mixed_bfloat16")
    losses = fit(model, ALL[name](), epochs=6, jit_compile=jit_compile)
    assert losses[-1] < 0.8 * losses[0]
    assert max(errors(model)) < 1e-5


# Stiefel


def test_gradients_of_orthogonal_kernels_are_projected_others_are_not():
    model = network()
    variables = model.trainable_variables
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
    rate, inner = 0.125, keras.optimizers.SGD(0.125, momentum=0.5)
    optimizer = Stiefel(inner)
    optimizer.build(variables)
    before = values(variables)
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    # After one step, the momentum is what the optimizer was given.
    momentums = [v for v in inner.variables if "momentum" in v.name]
    kernels = 0
    for momentum, gradient, variable, w in zip(
        momentums, gradients, variables, before, strict=True
    ):
        seen = values([momentum])[0] / -rate
        if manifolds.of(variable):
            kernels += 1
            expected = np.asarray(orthogonal.project_tangent(w, gradient))
            assert np.allclose(seen, expected, atol=1e-5)
            assert not np.allclose(seen, gradient, atol=1e-2)
        else:
            assert np.array_equal(seen, gradient)
    assert kernels == 2
    assert int(optimizer.iterations) == 1


def test_without_orthogonal_kernels_it_is_the_wrapped_optimizer():
    found = []
    for wrap in (Stiefel, lambda optimizer: optimizer):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        fit(model, wrap(keras.optimizers.AdamW(0.01, clipnorm=0.5)))
        found.append(model.get_weights())
    assert_close(*found, atol=0)


@pytest.mark.slow
def test_it_is_the_same_with_a_projection_in_the_layer():
    """Then the gradients are tangent already, and only rounding tells the two apart."""
    found = []
    for wrap in (Stiefel, lambda optimizer: optimizer):
        model = keras.Sequential(
            [
                keras.Input((6,)),
                DepthStack(OrthogonalDense(6, tangent_gradient=True), 3),
            ]
        )
        model.add(keras.layers.Dense(3))
        model.set_weights(
            [np.random.default_rng(1).normal(size=w.shape) for w in model.get_weights()]
        )
        for kernel, manifold in manifolds.constrained(model.trainable_variables):
            kernel.assign(manifold.nearest(kernel))
        fit(model, wrap(keras.optimizers.SGD(0.05, momentum=0.9)))
        found.append(model.get_weights())
    assert_close(*found, atol=1e-5)


@pytest.mark.slow
def test_the_momentum_stays_near_the_tangent_space():
    """Off it in proportion to the rate; without Stiefel as far as the gradient is."""

    def normal_part(wrap, rate):
        model = network(depth=2)
        optimizer = wrap(keras.optimizers.SGD(rate, momentum=0.9))
        fit(model, optimizer, epochs=3)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        (kernel,) = [v for v in model.trainable_variables if len(v.shape) == 3]
        (momentum,) = [v for v in inner.variables if len(v.shape) == 3]
        w, m = values([kernel, momentum])
        tangent = np.asarray(orthogonal.project_tangent(w, m))
        return np.linalg.norm(m - tangent) / np.linalg.norm(m)

    near = normal_part(Stiefel, 1e-4)
    assert near < 0.003
    assert normal_part(Stiefel, 1e-3) / near == pytest.approx(10, rel=0.1)
    assert normal_part(lambda optimizer: optimizer, 1e-4) > 0.2


def test_weight_decay_passes_over_orthogonal_kernels():
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    model = network()
    before = values(model.trainable_variables)
    stiefel = Stiefel(optimizer)
    stiefel.exclude_from_weight_decay(var_names=["bias"])
    stiefel.build(model.trainable_variables)
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    stiefel.apply(zeros, model.trainable_variables)
    for variable, start in zip(model.trainable_variables, before, strict=True):
        decays = not manifolds.of(variable) and "bias" not in variable.name
        expected = start * (1 - 0.1 * 0.5) if decays else start
        assert np.allclose(values([variable])[0], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {
            "weight_decay": 0.01,
            "loss_scale_factor": 128.0,
            "use_ema": True,
            "ema_momentum": 0.9,
            "clipnorm": 0.1,
        },
        {"gradient_accumulation_steps": 2, "global_clipnorm": 0.1},
        {
            "use_ema": True,
            "ema_momentum": 0.9,
            "ema_overwrite_frequency": 3,
            "clipvalue": 0.01,
        },
    ],
    ids=lambda settings: next(reversed(settings)),
)
@pytest.mark.parametrize("make", [INNER["adam"], None], ids=["adam", "stiefel_muon"])
def test_settings_of_every_optimizer(make, settings):
    model = network()
    optimizer = Stiefel(make(**settings)) if make else StiefelMuon(0.1, **settings)
    losses = fit(model, optimizer, epochs=4)
    assert losses[-1] < losses[0]
    if make or "use_ema" not in settings:  # fit ends with the averages
        assert max(errors(model)) < 1e-5


def test_clipping_acts_on_the_tangent_part():
    model = network(depth=2)
    optimizer = Stiefel(keras.optimizers.SGD(1.0, clipnorm=1e-3))
    variables = model.trainable_variables
    optimizer.build(variables)
    (kernel,) = [v for v in variables if len(v.shape) == 3]
    before = values([kernel])[0]
    rng = np.random.default_rng(0)
    gradients = [
        keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32"))
        for v in variables
    ]
    optimizer.apply(gradients, variables)
    moved = np.linalg.norm(values([kernel])[0] - before)
    assert abs(moved - 1e-3) < 1e-5


@pytest.mark.slow
def test_gradient_accumulation_equals_the_larger_batch():
    found = []
    for steps, size in ((None, 32), (2, 16)):
        model = network()
        inner = keras.optimizers.SGD(0.05, gradient_accumulation_steps=steps)
        model.compile(Stiefel(inner), keras.losses.SparseCategoricalCrossentropy(True))
        model.fit(*data(), batch_size=size, shuffle=False, verbose=0)
        found.append(model.get_weights())
    assert_close(*found, atol=1e-5)


def test_a_schedule_and_a_callback_set_the_rate():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.1, 0.0])
    model = network()
    fit(model, Stiefel(keras.optimizers.SGD(schedule)))
    assert float(model.optimizer.learning_rate) == 0
    optimizer = Stiefel(keras.optimizers.SGD(0.1))
    callback = keras.callbacks.LearningRateScheduler(lambda epoch: 0.02)
    fit(network(), optimizer, callbacks=[callback])
    assert math.isclose(float(optimizer.learning_rate), 0.02, rel_tol=1e-6)
    assert int(optimizer.iterations) == 8


def test_averages_that_training_ends_with_are_orthogonal():
    model = network(depth=4)
    inner = keras.optimizers.SGD(0.3, momentum=0.9, use_ema=True, ema_momentum=0.95)
    fit(model, Stiefel(inner))
    assert max(errors(model)) < 1e-5
    averages = [v for v in inner.variables if "average" in v.path]
    raw = [v for v in averages if len(v.shape) == 3]
    assert float(keras.ops.max(orthogonal.orthogonality_error(raw[0]))) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: Stiefel("sgd"), StiefelMuon])
def test_under_mixed_float16(make):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    losses = fit(model, make(), epochs=4)
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    assert losses[-1] < losses[0]
    assert max(errors(model)) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not is_tensorflow, reason="a strategy of TensorFlow")
@pytest.mark.parametrize("name", ["adam", "muon", "stiefel_muon"])
def test_two_replicas_are_one_process(name, replicas):
    with replicas.scope():
        model = network()
        fit(model, ALL[name]())
    # Muon's steps are signs, which rounding may turn.
    atol = 1e-2 if name == "muon" else 1e-4
    assert_close(model.get_weights(), after_an_epoch(name)[2], atol=atol)


LAYERWISE = {
    **ALL,
    "rmsprop": lambda: Stiefel(keras.optimizers.RMSprop(0.01)),
    "adamw": lambda: Stiefel(keras.optimizers.AdamW(0.01)),
    "adagrad": lambda: Stiefel(keras.optimizers.Adagrad(0.01)),
    "adadelta": lambda: Stiefel(keras.optimizers.Adadelta(0.1)),
    "adamax": lambda: Stiefel(keras.optimizers.Adamax(0.01)),
    "nadam": lambda: Stiefel(keras.optimizers.Nadam(0.01)),
    "ftrl": lambda: Stiefel(keras.optimizers.Ftrl(0.01)),
    "schedule free": lambda: Stiefel(keras.optimizers.ScheduleFreeAdamW(0.01)),
    "global norm": lambda: Stiefel(INNER["adam"](global_clipnorm=0.5)),
    "lamb": lambda: Stiefel(keras.optimizers.Lamb(0.01)),
    "adafactor": lambda: Stiefel(keras.optimizers.Adafactor(0.01)),
    "muon, norms": lambda: Stiefel(INNER["muon"](clipnorm=0.5)),
    "muon, global norm": lambda: Stiefel(INNER["muon"](global_clipnorm=0.5)),
    "muon, decay": lambda: Stiefel(
        INNER["muon"](weight_decay=0.5, adam_weight_decay=0.5)
    ),
    "lamb, averages": lambda: Stiefel(
        keras.optimizers.Lamb(0.01, use_ema=True, ema_overwrite_frequency=2)
    ),
    "lamb, two batches": lambda: Stiefel(
        keras.optimizers.Lamb(0.01, gradient_accumulation_steps=2)
    ),
    "lamb, a schedule": lambda: Stiefel(
        keras.optimizers.Lamb(
            keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.01, 0.1])
        )
    ),
    "stiefel_muon, decay": lambda: StiefelMuon(0.1, weight_decay=0.5),
}


def stepped(optimizer, weights, axes):
    """After three steps along gradients that do not depend on how weights are cut."""
    variables = []
    for name, value in weights:
        variable = keras.Variable(value, name=name)
        variable.stacked_axes = axes
        if name == "orthogonal":
            variable.constraint = Orthogonal()
        variables.append(variable)
    optimizer.build(variables)
    for step in range(3):
        gradients = [np.sin(7 * v + step) for v in values(variables)]
        gradients = [keras.ops.convert_to_tensor(g, "float32") for g in gradients]
        optimizer.apply(gradients, variables)
    return values(variables), int(optimizer.iterations)


@pytest.mark.parametrize("name", LAYERWISE)
def test_a_stack_is_stepped_as_its_layers_would_be(name):
    if IS_KERAS_3_10 and (name.startswith("muon") or name == "schedule free"):
        pytest.skip("Keras 3.10 has it not, or only for variables of its own")
    rng = np.random.default_rng(0)
    square = np.linalg.qr(rng.normal(size=(3, 4, 4)))[0]
    stacks = {
        "orthogonal": square,
        "kernel": rng.normal(size=(3, 4, 2)),
        "bias": rng.normal(size=(3, 4)),
        "gain": rng.normal(size=(3,)),
    }
    stacks = [(name, value.astype("float32")) for name, value in stacks.items()]
    layers = [(name, layer) for name, value in stacks for layer in value]
    (together, count), (alone, same) = (
        stepped(LAYERWISE[name](), weights, axes)
        for weights, axes in ((stacks, 1), (layers, 0))
    )
    assert count == same > 0
    assert_close([layer for value in together for layer in value], alone)
    for (_, before), after in zip(stacks, together, strict=True):
        assert np.abs(after - before).max() > 1e-4, "nothing was stepped"


BLOCKS = {
    "ours": lambda: OrthogonalDense(6, "gp_tanh"),
    "of Keras": lambda: keras.layers.Dense(
        6, "tanh", kernel_initializer="orthogonal", bias_initializer="random_normal"
    ),
    "nested": lambda: DepthStack(BLOCKS["of Keras"](), 2),
}


def unstacked(stack):
    """The layers of a stack, or of a stack of stacks."""
    if not isinstance(stack, DepthStack):
        return [stack]
    layers = (stack.layer_at(i) for i in range(stack.depth))
    return [single for layer in layers for single in unstacked(layer)]


def renamed(layer):
    """The layers of two stacks of one stack have the same names."""
    copy = type(layer).from_config({**layer.get_config(), "name": None})
    copy.build((None, 6))
    copy.set_weights(layer.get_weights())
    return copy


def trained(layers, optimizer, steps=3):
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)])
    model.layers[-1].set_weights([np.eye(6, 3), np.zeros(3)])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(steps * 16, 6)), rng.normal(size=(steps * 16, 3))
    model.compile(optimizer, "mse", jit_compile=JIT[0])
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces twice
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    return [single for layer in model.layers for single in unstacked(layer)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "name"),
    [
        *(("ours", name) for name in ("adam", "muon", "stiefel_muon")),
        *(("of Keras", name) for name in ("adam", "muon", "stiefel_muon")),
        *(("nested", name) for name in ("muon", "stiefel_muon")),
    ],
)
def test_layers_are_trained_alike_stacked_and_alone(block, name):
    keras.utils.set_random_seed(0)
    stack = DepthStack(BLOCKS[block](), 2 if block == "nested" else 5)
    stack.build((None, 6))
    alone = list(map(renamed, unstacked(stack)))
    before = [layer.get_weights() for layer in alone]
    # So many that each kernel has had its turn.
    these, those = (trained(layers, ALL[name](), 5) for layers in ([stack], alone))
    assert len(these) == len(those) == len(alone) + 1
    for a, b in zip(these, those, strict=True):
        assert_close(a.get_weights(), b.get_weights())
    for layer, weights in zip(those, before, strict=False):
        for after, start in zip(layer.get_weights(), weights, strict=True):
            assert np.abs(after - start).max() > 1e-4, "nothing was trained"


@pytest.mark.parametrize("steps", [None, 2])
def test_a_stack_is_all_that_there_is(steps):
    """Then the wrapped optimizer has no weight that it steps by itself."""
    stack = DepthStack(OrthogonalDense(6), 3)
    model = keras.Sequential([keras.Input((6,)), stack])
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.0])
    inner = keras.optimizers.Lamb(schedule, gradient_accumulation_steps=steps)
    model.compile(Stiefel(inner), "mse", jit_compile=JIT[0])
    x = np.random.default_rng(0).normal(size=(4 * 16, 6))
    model.fit(x, x, batch_size=16, verbose=0)
    assert int(model.optimizer.iterations) == 4 // (steps or 1)
    before = model.get_weights()
    model.fit(x, x, batch_size=16, verbose=0)  # at a rate of 0
    assert_close(model.get_weights(), before)


@not_on_keras_3_10("has no `adam_weight_decay`")
def test_optimizers_that_cannot_step_layers():
    stack = DepthStack(OrthogonalDense(4), 3)
    stack.build((None, 4))
    with pytest.raises(ValueError, match=r"adam_weight_decay=0\.5, weight_decay=0\.1"):
        Stiefel(INNER["muon"](weight_decay=0.1, adam_weight_decay=0.5)).build(
            stack.trainable_variables
        )
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Muon())
    with pytest.raises(ValueError, match=r"LossScaleOptimizer cannot step.*`apply`"):
        Stiefel(scaled).build(stack.trainable_variables)


@pytest.mark.parametrize("bad", [3, "no such optimizer", None, keras.layers.Dense(1)])
def test_what_is_no_optimizer(bad):
    with pytest.raises(ValueError, match="`optimizer` must be a Keras optimizer"):
        Stiefel(bad)


# StiefelMuon


def stepped_along(model, rate=0.01, seed=0, scale=1.0, steps=1, **settings):
    """The change of each weight in a few steps along random gradients."""
    variables = model.trainable_variables
    rng = np.random.default_rng(seed)
    before = values(variables)
    optimizer = StiefelMuon(rate, **settings)
    optimizer.build(variables)
    for _ in range(steps):
        gradients = [scale * rng.normal(size=v.shape) for v in variables]
        optimizer.apply(
            [keras.ops.convert_to_tensor(g, "float32") for g in gradients], variables
        )
    after = values(variables)
    return {
        v.path: (w, a - w) for v, w, a in zip(variables, before, after, strict=True)
    }


def changes_along(rate, **settings):
    steps = stepped_along(network(), rate, steps=3, **settings)
    return [change for _, change in steps.values()]


def test_the_size_of_a_step_of_a_convolution():
    """That of a matrix from patches to filters; of other kernels, by root mean square.

    A `spectral_sign` has singular values of about 1.
    """
    model = keras.Sequential([keras.Input((4, 4, 3))])
    model.add(keras.layers.Conv2D(8, 3, use_bias=False))
    model.add(keras.layers.DepthwiseConv2D(2, use_bias=False))
    model.add(keras.layers.Reshape((1, 8)))
    model.add(keras.layers.Conv1D(4, 1, use_bias=False))
    of_conv, of_depthwise, of_sequence = (
        change for _, change in stepped_along(model, 0.01).values()
    )
    found = np.linalg.svd(of_conv.reshape(27, 8), compute_uv=False)
    np.testing.assert_allclose(found, 0.01 * (8 / 27) ** 0.5, rtol=0.35)
    for change in (of_depthwise, of_sequence):
        assert np.sqrt(np.mean(change**2)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("depth", [1, 10, 100])
@pytest.mark.parametrize("units", [8, 32])
@pytest.mark.parametrize("period", [1, 4, 1000])
def test_the_size_of_a_step(depth, units, period):
    """In one of `period` steps, or of `depth`, a kernel moves by as many steps."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(units)])
    model.add(DepthStack(OrthogonalDense(units, "gp_tanh", use_bias=False), depth))
    model.add(keras.layers.Dense(3))
    rate = 0.01
    for path, (_, change) in stepped_along(model, rate, period=period).items():
        if change.ndim == 3:
            norms = np.linalg.norm(change, 2, axis=(1, 2))
            turns = min(period, depth)
            assert np.all(norms < 1.21 * rate * turns / depth)
            is_due = np.arange(depth) % turns == 0
            assert np.all(norms[is_due] > 0.67 * rate * turns / depth)
            assert not np.any(change[~is_due])
        elif change.ndim == 2:
            fan_in, fan_out = change.shape
            norm = np.linalg.norm(change, 2) * math.sqrt(fan_in / fan_out)
            assert 0.67 * rate < norm < 1.21 * rate
        else:
            assert math.isclose(np.sqrt(np.mean(change**2)), rate, rel_tol=1e-3), path


def test_a_step_is_along_the_orthogonal_matrices():
    for w, change in stepped_along(network(depth=5, units=16), 1e-3, period=1).values():
        if change.ndim == 3:
            product = np.swapaxes(w, 1, 2) @ change
            symmetric = product + np.swapaxes(product, 1, 2)
            assert np.abs(symmetric).max() < 2e-2 * np.abs(product).max()


@pytest.mark.parametrize(("count", "period"), [(1, 4), (2, 4), (4, 4), (9, 4), (5, 1)])
@pytest.mark.parametrize("first", [0, 3])
def test_each_kernel_is_due_once_in_a_period(first, count, period):
    turns = Turns(first, count, period)
    seen = []
    for step in range(40, 40 + period):
        indices, is_due = map(np.asarray, turns.due(keras.ops.convert_to_tensor(step)))
        assert np.all((indices >= 0) & (indices < count))
        assert len(set(indices)) == len(indices)
        assert np.all((indices[is_due] + first - step) % period == 0)
        assert np.any(is_due) or not turns.is_always_due
        seen += indices[is_due].tolist()
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize(("rate", "period"), [(0.3, 1), (0.3, 1000), (3.0, 1000)])
def test_kernels_are_orthogonal_after_each_step_whatever_their_constraint(rate, period):
    stack = DepthStack(
        OrthogonalDense(8, kernel_constraint=Orthogonal("qr", 1, 0.9)), 5
    )
    stack.build((None, 8))
    optimizer = StiefelMuon(rate, period=period)
    optimizer.build(stack.trainable_variables)
    rng, start = np.random.default_rng(0), stack.get_weights()[0]
    for _ in range(20):
        gradients = [rng.normal(size=v.shape) for v in stack.trainable_variables]
        gradients = [keras.ops.convert_to_tensor(g, "float32") for g in gradients]
        optimizer.apply(gradients, stack.trainable_variables)
        assert max(errors(stack)) < 1e-5
    assert np.abs(stack.get_weights()[0] - start).max(axis=(1, 2)).min() > 1e-2


def test_turns_are_counted_in_steps_not_in_batches():
    """Otherwise, some kernels would have none."""
    model = network(depth=7)
    before = model.get_weights()
    stepped_along(model, 0.1, steps=32, gradient_accumulation_steps=4)
    for w, v in zip(model.get_weights(), before, strict=True):
        change = np.abs(w - v)
        assert np.all(
            change.reshape(len(w), -1).max(axis=1) > 1e-3 if w.ndim == 3 else 1
        )


def test_a_gradient_that_is_not_finite():
    model = network()
    variables = model.trainable_variables
    optimizer = StiefelMuon()
    optimizer.build(variables)
    bad = [keras.ops.full(v.shape, float("nan")) for v in variables]
    with pytest.raises(ValueError, match="gradient of an orthogonal kernel is not fin"):
        optimizer.apply(bad, variables)


def test_features_change_by_at_most_the_rate():
    """However deep: the bound that lets one learning rate fit all depths."""
    for depth in (5, 33, 500):  # 33: two kernels in the first step
        model = keras.Sequential(
            [
                keras.Input((16,)),
                DepthStack(OrthogonalDense(16, "gp_tanh", use_bias=False), depth),
            ]
        )
        x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
        before = model.predict(x, verbose=0)
        stepped_along(model, 0.01, seed=depth)
        change = model.predict(x, verbose=0) - before
        assert 0 < np.linalg.norm(change) < 0.013 * np.linalg.norm(before)


def test_it_does_not_depend_on_the_scale_of_the_gradient():
    small, one, large = (changes_along(0.05, scale=z) for z in (1e-6, 1.0, 1e6))
    assert_close(small, one, atol=1e-3)
    assert_close(large, one, atol=1e-3)


def test_no_gradient_no_step():
    model = network()
    before = model.get_weights()
    optimizer = StiefelMuon(0.1)
    variables = model.trainable_variables
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    assert_close(model.get_weights(), before, atol=1e-6)


@pytest.mark.slow
def test_nesterov_and_momentum_matter():
    plain, ahead = (stepped_along(network(), nesterov=n) for n in (False, True))
    # In the first step both averages have one direction.
    for these, those in zip(plain.values(), ahead.values(), strict=True):
        assert np.allclose(these[1], those[1], atol=1e-5)
    found = []
    for settings in ({"nesterov": False}, {}, {"momentum": 0.0}):
        changes = changes_along(0.1, **settings)
        found.append(np.concatenate([change.ravel() for change in changes]))
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert np.abs(found[1] - found[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("momentum", value) for value in (1.0, -0.1, "a")),
        *(("ns_steps", 0), ("period", 0), ("period", 1.5)),
    ],
)
def test_bad_arguments_of_muon(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be .*{value}"):
        StiefelMuon(**{argument: value})


@pytest.mark.parametrize("jit_compile", JIT)
@pytest.mark.parametrize("make", [StiefelMuon, lambda: Stiefel("sgd")])
def test_an_embedding(make, jit_compile):
    """Its gradient is sparse on TensorFlow; rows without one stand still."""
    model = keras.Sequential(
        [
            keras.layers.Embedding(7, 4),
            keras.layers.Flatten(),
            OrthogonalDense(8, "gp_tanh"),
            keras.layers.Dense(1),
        ]
    )
    x, y = np.arange(12).reshape(4, 3) % 5, np.ones((4, 1))
    model.build(x.shape)
    before = model.get_weights()
    model.compile(make(), "mse", jit_compile=jit_compile)
    model.train_on_batch(x, y)
    change = model.get_weights()[0] - before[0]
    rows = np.sqrt(np.mean(change**2, axis=1))
    assert np.all(rows[:5] > 0) and np.all(rows[5:] == 0)
    if isinstance(model.optimizer, StiefelMuon):
        assert rows.max() == pytest.approx(0.05, rel=1e-4)


def test_an_orthogonal_embedding():
    embed = keras.layers.Embedding(7, 4, embeddings_constraint=Orthogonal())
    model = keras.Sequential([embed, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(Stiefel("adam"), "mse", jit_compile=False)
    model.fit(np.arange(12).reshape(4, 3) % 5, np.ones((4, 1)), verbose=0)
    assert max(errors(model)) < 1e-5


@pytest.mark.slow
def test_with_retract_at_the_end():
    model = network(kernel_constraint=Orthogonal(steps=1, tolerance=1e-2))
    fit(model, StiefelMuon(0.3), epochs=3, callbacks=[callbacks.Retract()])
    assert max(errors(model)) < 1e-6


def test_the_names_are_public():
    assert optimizers.__all__ == ["Stiefel", "StiefelMuon"]
