"""What a user does with the package: each use in small, which fails with an error."""

import functools
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_bsnn import (
    callbacks,
    datasets,
    diagnostics,
    export,
    layers,
    models,
    optimizers,
    recalibration,
)
from keras_bsnn.ops import isometry

DEPTH, UNITS, CLASSES = 10, 16, 10
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(256, 8)).astype("float32")
Y = (X @ RANDOM.normal(size=(8, CLASSES))).argmax(axis=1)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COMPILES = keras.backend.backend() != "torch"  # whose compiler unrolls the loop


def fitted(model, optimizer, **kwargs):
    """The model, trained a little on the classes."""
    model.compile(optimizer, LOSS, metrics=["accuracy"])
    check_loss(model.fit(X, Y, batch_size=64, epochs=2, verbose=0, **kwargs))
    return model


def check_loss(history):
    assert np.all(np.isfinite(history.history["loss"])), "the loss is not finite"


def check_equal(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def outputs(model):
    return model.predict(X, verbose=0)


def network():
    return models.bsnn_mlp(DEPTH, UNITS, input_shape=X.shape[1:])


@functools.cache
def trained():
    """The model of all uses that need one."""
    return fitted(network(), optimizers.StiefelMuon(0.05))


def sgd():
    fitted(network(), keras.optimizers.SGD(0.01))


def muon():
    model = network()
    model.compile(optimizers.StiefelMuon(0.05), LOSS, jit_compile=COMPILES)
    check_loss(model.fit(X, Y, batch_size=64, verbose=0))


def stiefel():
    fitted(network(), optimizers.Stiefel(keras.optimizers.Adam(1e-3)))


def batch_norm():
    model = models.batchnorm_mlp(DEPTH, UNITS, input_shape=X.shape[1:])
    fitted(model, optimizers.StiefelMuon(0.05))
    recalibration.recalibrate(model, X)
    assert np.all(np.isfinite(outputs(model)))


def roaf():
    model = models.roaf_mlp(DEPTH, UNITS, input_shape=X.shape[1:])
    fitted(model, keras.optimizers.Adam(1e-3))


def block():
    parts = [layers.OrthogonalDense(UNITS, "gp_tanh"), keras.layers.Dropout(0.1)]
    stack = layers.DepthStack(keras.Sequential(parts), DEPTH, checkpoint_every=5)
    ends = keras.layers.Dense(UNITS), keras.layers.Dense(CLASSES)
    model = keras.Sequential([keras.Input(X.shape[1:]), ends[0], stack, ends[1]])
    fitted(model, keras.optimizers.SGD(0.01))


def recurrent():
    model = keras.Sequential([keras.Input((50, 2)), layers.ROAF(UNITS, alpha=0.95)])
    model.add(keras.layers.Dense(1))
    model.compile("adam", "mse")
    data = datasets.adding_problem(50, 4)
    check_loss(model.fit(data, steps_per_epoch=3, shuffle=False, verbose=0))


def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        fitted(network(), keras.optimizers.SGD(0.01))
    finally:
        keras.config.set_dtype_policy(before)


def saved():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        trained().save(path)
        check_equal(outputs(keras.models.load_model(path)), outputs(trained()))


def backup():
    with tempfile.TemporaryDirectory() as folder:
        given = {"callbacks": [callbacks.BackupAndRestore(folder)], "shuffle": False}
        fitted(network(), keras.optimizers.SGD(0.01), **given)


def report():
    assert "signal gets through" in diagnostics.signal_report(trained(), X, Y).verdict


def monitor():
    watching = callbacks.SignalMonitor(X[:32], Y[:32])
    fitted(network(), keras.optimizers.SGD(0.01), callbacks=[watching])
    assert watching.reports


def retract():
    fitted(network(), keras.optimizers.SGD(0.01), callbacks=[callbacks.Retract()])


def jacobian():
    found = isometry.jacobian_singular_values(trained(), X[:2])
    assert found.shape == (2, X.shape[1]) and np.all(found > 0)


def plain():
    check_equal(outputs(export.to_keras(trained())), outputs(trained()))


def saved_model():
    with tempfile.TemporaryDirectory() as folder:
        export.saved_model(trained(), path := Path(folder, "served"))
        export.verify(path)


def sequences():
    x, y = next(iter(datasets.copy_memory(20, 3)))
    assert tuple(x.shape) == (3, 40, 10) and tuple(y.shape) == (3, 40)


USES = {
    "training with SGD": sgd,
    "training with StiefelMuon, compiled": muon,
    "training with Stiefel(Adam)": stiefel,
    "batch normalization, recalibrated": batch_norm,
    "additive filters": roaf,
    "a block of one's own, with checkpoints": block,
    "a recurrent network": recurrent,
    "mixed precision": mixed_precision,
    "saving and loading": saved,
    "resuming from a backup": backup,
    "a signal report": report,
    "a signal monitor": monitor,
    "retraction in training": retract,
    "singular values of the Jacobian": jacobian,
    "export to plain Keras": plain,
    "export to a SavedModel": saved_model,
    "data of sequences": sequences,
}
