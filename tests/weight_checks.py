"""What Keras does to a weight, each as a check of a small network of all our layers.

`OPERATIONS` are functions of a `Setting` and of an empty folder. Each asserts what must
hold, and returns the number by which it held: an orthogonality error or a difference of
weights. `tests/test_weight_operations.py` runs a few settings of each, and
`benchmarks/weight_operations.py` all that `grid` gives.
"""

import contextlib
import contextvars
import itertools
import warnings
from typing import NamedTuple

import keras
import numpy as np
import pytest
from backends import IS_TORCH

from keras_bsnn import callbacks, layers, manifolds, optimizers

is_tensorflow = keras.backend.backend() == "tensorflow"
BOUND = 1e-5  # of orthogonality errors
BATCH, BATCHES = 16, 4
FAILURES = (Exception, pytest.fail.Exception)  # the latter is of `pytest.warns`


def _several(**settings):
    stack = optimizers.StiefelMuon(0.1, **settings)
    others = keras.optimizers.Adam(0.01, **settings)
    by_path = keras.optimizers.OptimizerMap(others, {".*depth_stack.*": stack})
    return keras.optimizers.MultiOptimizer(by_path)


OPTIMIZERS = {
    "SGD": lambda **kw: keras.optimizers.SGD(0.05, momentum=0.9, **kw),
    "Adam": lambda **kw: keras.optimizers.Adam(0.01, **kw),
    "AdamW": lambda **kw: keras.optimizers.AdamW(0.01, **{"weight_decay": 0.1, **kw}),
    "Muon": lambda **kw: keras.optimizers.Muon(0.01, **kw),
    "Stiefel(SGD)": lambda **kw: optimizers.Stiefel(OPTIMIZERS["SGD"](**kw)),
    "Stiefel(AdamW)": lambda **kw: optimizers.Stiefel(OPTIMIZERS["AdamW"](**kw)),
    "StiefelMuon": lambda **kw: optimizers.StiefelMuon(0.1, **kw),
    "MultiOptimizer": _several,
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")


class Setting(NamedTuple):
    """How a network is trained.

    Attributes:
        optimizer: a name in `OPTIMIZERS`.
        precision: a dtype policy; with `"mixed_float16"` Keras scales the loss.
        jit: whether XLA compiles the steps.
        replicas: number of devices, 1 or 2.
    """

    optimizer: str = "Adam"
    precision: str = "float32"
    jit: bool = keras.backend.backend() == "jax"
    replicas: int = 1


def settings():
    """All that exist. What is left out does not work without our layers, either.

    Keras on JAX and PyTorch narrows float64. On JAX without jit it compiles the loop of
    a stack anew in each step; on TensorFlow it does not compile what several devices
    do; on PyTorch it has no XLA, and one device.
    """
    found = itertools.starmap(
        Setting, itertools.product(OPTIMIZERS, PRECISIONS, (False, True), (1, 2))
    )
    if is_tensorflow:
        return [s for s in found if not (s.jit and s.replicas > 1)]
    if IS_TORCH:
        found = (s for s in found if not s.jit and s.replicas == 1)
        return [s for s in found if s.precision != "float64"]
    return [s for s in found if s.jit and s.precision != "float64"]


def grid(everything=False):
    """Pairs of an operation and a setting.

    Each operation has a setting for each optimizer, by which precisions and devices
    take turns, and training has all. With `everything`, so has each operation.
    """
    applicable = {
        name: [s for s in settings() if operation.applies(s)]
        for name, operation in OPERATIONS.items()
    }
    turns = [_in_turns(found, i) for i, found in enumerate(applicable.values())]
    pairs = [
        (name, s)
        for of_all in zip(*turns, strict=True)
        for name, s in zip(OPERATIONS, of_all, strict=True)
    ]
    for name, found in applicable.items():
        if everything or name == "training":
            pairs += [(name, s) for s in found]
    return list(dict.fromkeys(pairs))


def _in_turns(found, turn):
    """As many settings as there are optimizers."""
    ways = {}
    for s in found:
        ways.setdefault(s.optimizer, []).append(s)
    for i, of_one in zip(range(len(OPTIMIZERS)), itertools.cycle(ways.values())):
        # Coprime to the numbers of precisions and devices: all have their turn.
        yield of_one[(turn + 5 * i) % len(of_one)]


OPERATIONS = {}


def operation(name, applies=lambda setting: True):
    def add(function):
        function.applies = applies
        OPERATIONS[name] = function
        return function

    return add


def check(name, setting, folder):
    """Runs one operation; returns its number."""
    with _environment(setting):
        return float(OPERATIONS[name](setting, folder))


_only_keras = contextvars.ContextVar("only_keras", default=False)


@contextlib.contextmanager
def _environment(setting):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(setting.precision)
    keras.utils.set_random_seed(0)
    try:
        with _devices(setting.replicas):
            yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _devices(replicas):
    if replicas == 1:
        yield
    elif is_tensorflow:
        import tensorflow as tf

        # Collectives allow one strategy a process.
        names = [device.name for device in tf.config.list_logical_devices("CPU")]
        assert len(names) == replicas
        with tf.distribute.MirroredStrategy(
            names, tf.distribute.ReductionToOneDevice()
        ).scope():
            yield
    else:
        devices = keras.distribution.list_devices()
        assert len(devices) == replicas
        parallel = keras.distribution.DataParallel(devices=devices)
        keras.distribution.set_distribution(parallel)
        try:
            yield
        finally:
            keras.distribution.set_distribution(None)


def network(normalized=True, dropout=0.0):
    """All families of layers; without `normalized`, samples do not see one another."""
    keras.utils.set_random_seed(0)
    if _only_keras.get():
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, name="head")])
    hidden = [
        layers.OrthogonalDense(8, "gp_tanh", name="first"),
        layers.DepthStack(layers.OrthogonalDense(8, "gp_tanh"), 3, name="depth_stack"),
        layers.ROAFDense(8, 0.9, filter_seed=0, name="roaf"),
    ]
    if normalized:
        kwargs = {"affine": True, "kernel_constraint": "orthogonal"}
        hidden.append(layers.BatchNormDense(8, name="normalized", **kwargs))
    if dropout:
        hidden.append(keras.layers.Dropout(dropout))
    head = keras.layers.Dense(3, dtype=_head_dtype(), name="head")
    return keras.Sequential([keras.Input((6,)), *hidden, head])


def _head_dtype():
    return "float64" if keras.config.floatx() == "float64" else None


def data(count=BATCH * BATCHES):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(count, 6)).astype("float32")
    return x, np.argmax(x[:, :3], axis=1)


def compiled(model, setting, **optimizer):
    optimizer = OPTIMIZERS[setting.optimizer](**optimizer)
    return compiled_with(model, setting, optimizer)


def compiled_with(model, setting, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=setting.jit)
    return model


def fit(model, *more, batch_size=BATCH, epochs=1, **kwargs):
    """The losses of the epochs."""
    history = model.fit(
        *data(),
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*more],
        **kwargs,
    )
    return history.history["loss"]


def values(variables):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def state(model):
    return values([*model.variables, *model.optimizer.variables])


def largest_difference(these, those):
    differences = [
        np.max(np.abs(a.astype("float64") - b.astype("float64")), initial=0.0)
        for a, b in zip(these, those, strict=True)
    ]
    return max(differences)


def kernels(model):
    """Also those that are frozen."""
    return [v for v, _ in manifolds.constrained(model.weights)]


def largest_error(model):
    errors = (m.error(v) for v, m in manifolds.constrained(model.weights))
    return max(float(keras.ops.max(error)) for error in errors)


def assert_orthogonal(model):
    if _only_keras.get():
        return 0.0
    assert len(kernels(model)) >= 2
    error = largest_error(model)
    assert error < BOUND, f"orthogonality error {error:.1e}"
    assert all(np.all(np.isfinite(w)) for w in values(model.weights))
    return error


def assert_told(model):
    """That a kernel is not orthogonal, by its layer."""
    with pytest.raises(AssertionError, match="'first' is not orthogonal"):
        model.get_layer("first").assert_orthogonal()


@operation("training")
def training(setting, folder):
    """The loss falls, every weight moves, kernels are orthogonal."""
    model = compiled(network(), setting)
    before = values(model.trainable_variables)
    losses = fit(model, epochs=4)
    assert losses[-1] < losses[0]
    after = values(model.trainable_variables)
    assert all(np.any(a != b) for a, b in zip(before, after, strict=True))
    return assert_orthogonal(model)


@operation("averages of weights (EMA)")
def averages(setting, folder):
    """They are not orthogonal, which is told; `Retract` mends it, and so `Stiefel`."""
    average = {"use_ema": True, "ema_momentum": 0.9}
    model = compiled(network(), setting, **average)
    fit(model)
    if setting.optimizer.startswith("Stiefel("):
        return assert_orthogonal(model)
    assert_told(model)
    model = compiled(network(), setting, **average)
    with pytest.warns(UserWarning, match="had to be brought back"):
        fit(model, callbacks.Retract())
    return assert_orthogonal(model)


@operation("gradient accumulation", lambda s: s.precision in ("float32", "float64"))
def accumulation(setting, folder):
    """Two batches are as one of twice the size."""
    found = []
    for steps, size in ((None, 2 * BATCH), (2, BATCH)):
        model = compiled(
            network(normalized=False), setting, gradient_accumulation_steps=steps
        )
        fit(model, batch_size=size)
        found.append(values(model.trainable_variables))
        assert_orthogonal(model)
    difference = largest_difference(*found)
    assert difference < 1e-3, f"weights differ by {difference:.1e}"
    return difference


@operation("loss scaling, overflow")
def overflow(setting, folder):
    """A step that overflows is left out; the next are not."""
    inner = OPTIMIZERS[setting.optimizer]()
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**8)
    model = compiled_with(network(normalized=False), setting, scaled)
    fit(model)
    before, (scale,) = values(model.weights), values([scaled.dynamic_scale])
    x, y = data(BATCH)
    model.fit(np.full_like(x, np.inf), y, batch_size=BATCH, verbose=0)
    assert values([scaled.dynamic_scale]) == [scale / 2]
    assert largest_difference(values(model.weights), before) == 0
    fit(model)
    assert largest_difference(values(model.weights), before) > 0
    return assert_orthogonal(model)


@operation("set_weights")
def set_weights(setting, folder):
    """What is set may be anything, which is told; `retract`, or a step, mends it."""
    model = compiled(network(), setting)
    far = [w + 0.1 for w in model.get_weights()]
    model.set_weights(far)
    assert_told(model)
    with pytest.warns(UserWarning, match="had to be brought back"):
        callbacks.retract(model)
    error = assert_orthogonal(model)
    model.set_weights(far)
    fit(model)
    return max(error, assert_orthogonal(model))


@operation("freezing, transfer")
def freezing(setting, folder):
    """Frozen layers do not move, nor do their statistics; thawed they train on."""
    body = network()
    fit(compiled(body, setting), epochs=2)
    frozen = [layer for layer in body.layers if layer.name != "head"]
    for layer in frozen:
        layer.trainable = False
    before = values(v for layer in frozen for v in layer.variables)
    head = keras.layers.Dense(3, dtype=_head_dtype(), name="new")
    model = compiled(keras.Sequential([*body.layers[:-1], head]), setting)
    fit(model)
    assert len(model.trainable_variables) == 2
    after = values(v for layer in frozen for v in layer.variables)
    assert largest_difference(before, after) == 0
    for layer in frozen:
        layer.trainable = True
    fit(compiled(model, setting))
    thawed = values(v for layer in frozen for v in layer.variables)
    assert largest_difference(before, thawed) > 0
    return assert_orthogonal(model)


@operation("clone_model")
def clone(setting, folder):
    """A clone starts anew; given the weights it is equal, and stays independent."""
    model = compiled(network(), setting)
    fit(model)
    twin = compiled(keras.models.clone_model(model), setting)
    error = assert_orthogonal(twin)
    stack = values(kernels(twin))[1]
    assert np.all(np.any(stack[0] != stack[1:], axis=(1, 2))), "layers are equal"
    twin.set_weights(model.get_weights())
    x, _ = data()
    assert np.array_equal(*(m.predict(x, verbose=0) for m in (model, twin)))
    before = values(model.variables)
    fit(twin)
    assert largest_difference(values(model.variables), before) == 0
    return max(error, assert_orthogonal(twin))


@operation("weight decay")
def weight_decay(setting, folder):
    """Kernels keep their norm; other matrices lose it."""
    model = compiled(network(), setting, weight_decay=0.5)
    head = model.get_layer("head").kernel
    head.assign(10 * keras.ops.ones(head.shape))
    fit(model, epochs=3)
    assert np.mean(values([head])[0]) < 10
    return assert_orthogonal(model)


@operation("checkpoint, whole model")
def checkpoint(setting, folder):
    """What `ModelCheckpoint` wrote is loaded, and goes on as if unbroken."""
    path = folder / "{epoch}.keras"
    model = compiled(network(), setting)
    fit(model, keras.callbacks.ModelCheckpoint(str(path)), epochs=3)
    again = keras.models.load_model(str(path).format(epoch=2))
    again.fit(*data(), batch_size=BATCH, shuffle=False, verbose=0)
    assert_orthogonal(again)
    return _assert_equal(again, model)


@operation("checkpoint, weights")
def weights_checkpoint(setting, folder):
    """The same for weights and optimizer alone, into a model that is there."""
    path = str(folder / "{epoch}.weights.h5")
    model = compiled(network(), setting)
    fit(model, keras.callbacks.ModelCheckpoint(path, save_weights_only=True), epochs=3)
    again = compiled(network(), setting)
    again.optimizer.build(again.trainable_variables)
    again.load_weights(path.format(epoch=2))
    fit(again)
    assert_orthogonal(again)
    return _assert_equal(again, model)


@operation("BackupAndRestore, broken off")
def backup(setting, folder):
    """With random numbers: the end is that of an unbroken run."""

    def stop(epoch, logs):
        if epoch == 2:
            raise InterruptedError

    stops = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    models = [compiled(network(dropout=0.2), setting) for _ in range(3)]
    fit(models[0], epochs=4)
    with pytest.raises(InterruptedError):
        fit(models[1], stops, callbacks.BackupAndRestore(folder), epochs=4)
    fit(models[2], callbacks.BackupAndRestore(folder), epochs=4)
    assert_orthogonal(models[2])
    return _assert_equal(models[2], models[0])


def _assert_equal(model, other):
    difference = largest_difference(state(model), state(other))
    assert difference < 1e-6, f"weights differ by {difference:.1e}"
    return difference


# Keras refuses int8 where it computes in float16.
@operation(
    "quantize", lambda s: s.optimizer == "Adam" and s.precision != "mixed_float16"
)
def quantize(setting, folder):
    """Our layers refuse, and say so; in a model they can stay, the others are int8."""
    model = compiled(network(), setting)
    fit(model)
    for layer in model.layers[:-1]:
        known_by = f"'{layer.name}'|Layer {type(layer).__name__}"
        with pytest.raises((NotImplementedError, ValueError), match=known_by):
            layer.quantize("int8")
    before, kept = model.predict(data()[0], verbose=0), values(kernels(model))
    model.quantize("int8", filters="head")
    assert model.get_layer("head").kernel.dtype == "int8"
    assert largest_difference(values(kernels(model)), kept) == 0
    after = model.predict(data()[0], verbose=0)
    difference = np.max(np.abs(after - before)) / np.max(np.abs(before))
    assert difference < 0.03, f"logits differ by {difference:.1e} of the largest"
    return assert_orthogonal(model)


@operation("LoRA", lambda s: s.optimizer == "Adam")
def lora(setting, folder):
    """Our kernels have none; what Keras gives another layer, `Retract` watches."""
    model = network()
    for layer in model.layers[:-1]:
        if hasattr(layer, "enable_lora"):  # a stack, for the layers of others
            with pytest.raises(ValueError, match="a block with layers that have it"):
                layer.enable_lora(2)
    model.get_layer("head").enable_lora(2)
    fit(compiled(model, setting))
    return assert_orthogonal(model)


def run(name, setting, folder):
    """An outcome for a record.

    Returns:
        A dict with the `number`; or with the `error`, and whether a network of Keras'
        own layers has the same (`in_keras`), in this operation or in training.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return {"number": float(f"{check(name, setting, folder):.1e}")}
        except FAILURES as caught:
            error = _in_short(caught)
        of_keras = {_error_in_keras(n, setting, folder) for n in (name, "training")}
    return {"error": error, "in_keras": error in of_keras}


def _error_in_keras(name, setting, folder):
    token = _only_keras.set(True)
    try:
        check(name, setting, folder)
    except FAILURES as caught:
        return _in_short(caught)
    finally:
        _only_keras.reset(token)


def _in_short(error):
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
