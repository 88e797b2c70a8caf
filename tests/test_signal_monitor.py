import csv

import keras
import numpy as np
import pytest
from backends import IS_TORCH

from keras_bsnn import diagnostics, models
from keras_bsnn.callbacks import SignalMonitor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = RNG.integers(0, 10, 64)


def model(jit=False):
    keras.utils.set_random_seed(0)
    made = models.bsnn_mlp(10, 16, input_shape=(6,))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.01), loss, jit_compile=jit)
    return made


def diverging():
    layers = [keras.layers.Dense(10, "relu"), keras.layers.Dense(10)]
    made = keras.Sequential([keras.Input((6,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(1e30), loss, jit_compile=False)
    return made


def fitted(network, *callbacks, **kwargs):
    settings = {"batch_size": 8, "epochs": 3, "verbose": 0, "shuffle": False}
    return network.fit(X, Y, callbacks=[*callbacks], **{**settings, **kwargs}).history


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True], ids=["no jit", "jit"])
def test_logs_are_those_of_a_report(jit, tmp_path):
    network = model(jit)
    monitor = SignalMonitor(X, Y)
    history = fitted(network, monitor, keras.callbacks.CSVLogger(tmp_path / "log.csv"))
    report = diagnostics.signal_report(network, X, Y)
    expected = {
        "signal_gradient_ratio": report.gradient[0] / report.gradient[-1],
        "signal_gradient_min": report.trained().gradient.min(),
        "signal_output_max": report.trained().root_mean_square.max(),
        "signal_isometry_gap": report.isometry_gap[:-1].max(),
        "signal_saturated": np.nanmax(report.saturated),
    }
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, value in expected.items():
        assert len(history[name]) == 3
        assert history[name][-1] == pytest.approx(value, rel=1e-4, abs=1e-6)
        assert [float(row[name]) for row in rows] == pytest.approx(history[name])
    assert list(monitor.reports) == [8, 16, 24]


@pytest.mark.slow
@pytest.mark.parametrize(("at_once", "expected"), [(1, 3), (4, 4)])
def test_every_few_batches(at_once, expected):
    """Measured at the end of what is executed at once."""
    if IS_TORCH and at_once > 1:
        pytest.skip("Keras on PyTorch executes one step at once")
    network = model()
    settings = {"steps_per_execution": at_once, "jit_compile": False}
    network.compile("sgd", network.loss, **settings)
    monitor = SignalMonitor(X, Y, every=3)
    fitted(network, monitor, epochs=2)
    assert min(monitor.reports) == expected
    if at_once == 1:
        assert list(monitor.reports) == [3, 6, 9, 12, 15]


@pytest.mark.slow
def test_training_is_the_same_with_it():
    a, b = model(), model()
    fitted(a), fitted(b, SignalMonitor(X, Y, every=1))
    for one, other in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_training_ends_where_signals_are_not_finite():
    monitor = SignalMonitor(X, Y, every=1)
    with pytest.warns(
        UserWarning, match=r"ends after \d+ batches\. .* not finite from"
    ):
        history = fitted(diverging(), monitor)
    assert len(history["loss"]) == 1 and len(monitor.reports) < 8
    monitor = SignalMonitor(X, Y, every=4, stop_if_not_finite=False)
    assert len(fitted(diverging(), monitor)["loss"]) == 3


@pytest.mark.slow
def test_tensorboard_shows_it(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    monitor = SignalMonitor(X, Y, log_dir=tmp_path / "signal")
    board = keras.callbacks.TensorBoard(tmp_path)
    fitted(model(), monitor, board)

    def read(folder):
        found = event_accumulator.EventAccumulator(str(tmp_path / folder))
        found.Reload()
        return found

    events = read("signal")
    names = [f"signal/log10 {n} of layers" for n in ("gradient", "root_mean_square")]
    report = monitor.reports[24]
    for name in names:
        tensors = events.Tensors(name)
        assert [event.step for event in tensors] == [8, 16, 24]
    from tensorboard.util import tensor_util

    buckets = tensor_util.make_ndarray(events.Tensors(names[0])[-1].tensor_proto)
    assert buckets[:, 2].sum() == len(report.gradient)
    assert buckets[0, 0] == pytest.approx(np.log10(report.gradient.min()), abs=1e-5)
    image = tensor_util.make_ndarray(events.Tensors("signal/layers")[-1].tensor_proto)
    assert image[2].startswith(b"\x89PNG")
    short = events.Tensors("signal/gradient_ratio")
    assert [event.step for event in short] == [8, 16, 24]
    logged = read("train").Tensors("epoch_signal_gradient_ratio")
    ratio = float(tensor_util.make_ndarray(logged[-1].tensor_proto))
    assert ratio == pytest.approx(report.gradient[0] / report.gradient[-1], rel=1e-4)
    assert float(tensor_util.make_ndarray(short[-1].tensor_proto)) == ratio


def test_a_model_with_an_embedding():
    x = RNG.integers(0, 5, (64, 3))
    layers = [keras.layers.Embedding(5, 4), keras.layers.Flatten()]
    network = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(10)])
    network.compile("sgd", model().loss)
    monitor = SignalMonitor(x, Y)
    network.fit(x, Y, callbacks=[monitor], verbose=0)
    assert np.all(next(iter(monitor.reports.values())).weight_gradient[[0, 2]] > 0)


def test_bad_arguments():
    for bad in (0, 2.5, "epoch"):
        with pytest.raises(ValueError, match="`every` must be None or an integer"):
            SignalMonitor(X, Y, every=bad)
    with pytest.raises(ValueError, match="same number of samples"):
        fitted(model(), SignalMonitor(X, Y[:3]))
