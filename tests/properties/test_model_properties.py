"""Of ready-made models, and of what is measured, changed and exported of them."""

import keras
import numpy as np
import pytest
from draws import array, error_of, normal, property_of, rarely, seeds
from hypothesis import example, given
from hypothesis import strategies as st

from keras_bsnn import (
    callbacks,
    constraints,
    diagnostics,
    export,
    layers,
    models,
    recalibration,
)
from keras_bsnn.layers import _filters

MAKERS = {
    "bsnn": (
        models.bsnn_mlp,
        {
            "activation": st.sampled_from(["gp_tanh", "gp_relu", "gp_gelu"]),
            "retraction": st.sampled_from([*constraints.RETRACTIONS]),
            "stacked": st.booleans(),
        },
    ),
    "batch norm": (
        models.batchnorm_mlp,
        {
            "activation": st.sampled_from([None, "tanh", "sin", "gp_relu"]),
            "gain": st.none() | st.floats(0.1, 2),
            "shrinkage": st.none() | st.floats(0, 1),
        },
    ),
    "filters": (
        models.roaf_mlp,
        {
            "activation": st.sampled_from(["tanh", "relu"]),
            "filter": st.sampled_from([*_filters.FILTERS]),
            "shared_filter": st.booleans(),
            "c": st.floats(0, 1),
        },
    ),
}
made = st.sampled_from([*MAKERS.values()]).flatmap(
    lambda maker: st.tuples(st.just(maker[0]), st.fixed_dictionaries(maker[1]))
)
sizes = st.integers(2, 5)


def model_of(made, depth, units, seed):
    maker, arguments = made
    return maker(depth, units, classes=3, input_shape=(4,), seed=seed, **arguments)


@property_of(models.bsnn_mlp, models.batchnorm_mlp, models.roaf_mlp)
@rarely
@given(made, st.integers(1, 3), sizes, seeds)
def test_models_are_those_of_their_seed(made, depth, units, seed):
    model, x = model_of(made, depth, units, seed), normal((6, 4), seed, "float32")
    assert model.output_shape == (None, 3)
    y = array(model(x))
    assert y.shape == (6, 3) and np.isfinite(y).all()
    np.testing.assert_array_equal(y, array(model_of(made, depth, units, seed)(x)))
    other = model_of(made, depth, units, (seed + 1) % 2**32)
    assert np.abs(array(other(x)) - y).max() > 1e-4


@property_of(models.bsnn_cnn)
@rarely
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(4, 6)), min_size=1, max_size=2),
    st.lists(st.integers(1, 4), max_size=1),
    st.sampled_from(["circular", "same"]),
    st.booleans(),
    seeds,
)
def test_networks_of_images_are_those_of_their_seed(
    stages, stem, padding, stacked, seed
):
    def model(seed):
        return models.bsnn_cnn(
            *zip(*stages, strict=True),
            "gp_tanh",
            classes=3,
            stem=stem,
            padding=padding,
            input_shape=(4, 4, 2),
            seed=seed,
            stacked=stacked,
        )

    x = normal((2, 4, 4, 2), seed, "float32")
    y = array(model(seed)(x))
    assert y.shape == (2, 3) and np.isfinite(y).all()
    np.testing.assert_array_equal(y, array(model(seed)(x)))
    assert np.abs(array(model((seed + 1) % 2**32)(x)) - y).max() > 1e-4


IMAGES = {
    models.batchnorm_cnn: {
        "activation": st.sampled_from([None, "tanh", "gp_relu"]),
        "gain": st.none() | st.floats(0.1, 2),
        "shrinkage": st.none() | st.floats(0, 1),
    },
    models.roaf_cnn: {
        "activation": st.sampled_from(["tanh", "relu"]),
        "filter": st.sampled_from([*_filters.FILTERS]),
        "shared_filter": st.booleans(),
        "c": st.floats(0, 1),
    },
}
of_images = st.sampled_from([*IMAGES]).flatmap(
    lambda maker: st.tuples(st.just(maker), st.fixed_dictionaries(IMAGES[maker]))
)


@property_of(models.batchnorm_cnn, models.roaf_cnn)
@rarely
@given(of_images, st.integers(1, 3), st.lists(st.integers(1, 4), max_size=1), seeds)
def test_models_of_images_are_those_of_their_seed(made, depth, stem, seed):
    maker, arguments = made

    def model(seed):
        settings = {"input_shape": (4, 2, 1), "stem": stem, "seed": seed}
        return maker(depth, 5, classes=3, **settings, **arguments)

    x = normal((6, 4, 2, 1), seed, "float32")
    y = array(model(seed)(x))
    assert y.shape == (6, 3) and np.isfinite(y).all()
    np.testing.assert_array_equal(y, array(model(seed)(x)))
    assert np.abs(array(model((seed + 1) % 2**32)(x)) - y).max() > 1e-4


@property_of(models.roaf_rnn)
@rarely
@given(sizes, st.integers(1, 3), st.floats(0.5, 0.99), st.booleans(), seeds)
def test_recurrent_models_are_those_of_their_seed(units, outputs, alpha, each, seed):
    def model(seed):
        return models.roaf_rnn(units, outputs, alpha, seed=seed, return_sequences=each)

    x = normal((2, 3, 1), seed, "float32")
    y = array(model(seed)(x))
    assert y.shape == ((2, 3, outputs) if each else (2, outputs))
    np.testing.assert_array_equal(y, array(model(seed)(x)))
    assert np.abs(array(model((seed + 1) % 2**32)(x)) - y).max() > 1e-6


@pytest.mark.slow
@property_of(
    diagnostics.signal_report, diagnostics.SignalMeter, diagnostics.SignalReport
)
@rarely
@given(made, st.integers(1, 3), seeds)
@example((models.batchnorm_mlp, {"activation": "tanh"}), 3, 0)
@example((models.roaf_mlp, {"activation": "relu"}), 3, 0)
def test_a_report_has_a_row_for_each_layer_and_the_loss(made, depth, seed):
    model = model_of(made, depth, 4, seed)
    model.compile(loss="mse")
    x, y = normal((6, 4), seed, "float32"), normal((6, 3), seed, "float32")
    report = diagnostics.signal_report(model, x, y, False, jit_compile=False)
    table = report.to_dict()
    assert {len(column) for column in table.values()} == {len(report.layers)}
    assert report.parameters.sum() == sum(np.size(w) for w in model.trainable_weights)
    outputs = array(model(x))
    np.testing.assert_allclose(report.loss, np.mean((outputs - y) ** 2), rtol=1e-4)
    np.testing.assert_allclose(
        report.root_mean_square[-1], np.sqrt(np.mean(outputs**2)), rtol=1e-4
    )
    of_outputs = 2 * (outputs - y) / y.size
    np.testing.assert_allclose(
        report.gradient[-1], np.linalg.norm(of_outputs), rtol=1e-3
    )
    meter = diagnostics.SignalMeter(model, False, jit_compile=False)
    np.testing.assert_allclose(meter(x, y).gradient, report.gradient, rtol=1e-5)


@property_of(diagnostics.check_batch)
@given(st.integers(1, 6), st.integers(6, 9), seeds)
def test_the_rank_of_a_batch(rank, samples, seed):
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormDense(rank)])
    x = normal((samples, rank), seed) @ normal((rank, 6), seed + 1)
    assert diagnostics.check_batch(model, x.astype("float32")) == rank


@property_of(recalibration.recalibrate)
@rarely
@given(st.integers(1, 3), st.floats(0, 1), st.booleans(), st.integers(1, 12), seeds)
def test_recalibrated_statistics_are_exact_however_data_are_batched(
    depth, shrinkage, center, size, seed
):
    def make():
        block = layers.BatchNormDense(
            4, "tanh", center=center, shrinkage=shrinkage, kernel_initializer=haar
        )
        return keras.Sequential([keras.Input((4,)), layers.DepthStack(block, depth)])

    haar = keras.initializers.Orthogonal(seed=seed)
    x = normal((12, 4), seed, "float32")
    model, other = make(), make()
    recalibration.recalibrate(model, x)
    recalibration.recalibrate(other, [x[i : i + size] for i in range(0, 12, size)])
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for layer in model.layers[0].each_layer():
        z = array(layer.project(x))
        moment = z.var(axis=0) if center else np.square(z).mean(axis=0)
        np.testing.assert_allclose(
            array(layer.moving_variance), moment, rtol=1e-3, atol=1e-6
        )
        x = layer(x)


@pytest.mark.slow
@property_of(export.fold, export.to_keras)
@rarely
@given(made, st.integers(1, 3), seeds)
@example((models.batchnorm_mlp, {"activation": "tanh"}), 3, 0)
@example((models.roaf_mlp, {"activation": "relu"}), 3, 0)
def test_exported_models_are_equal(made, depth, seed):
    model, x = model_of(made, depth, 4, seed), normal((6, 4), seed, "float32")
    recalibration.recalibrate(model, x)
    expected = array(model(x))
    size = max(1.0, np.abs(expected).max())
    for equal in (export.to_keras(model), export.fold(model)):
        np.testing.assert_allclose(array(equal(x)), expected, atol=1e-4 * size)


def scattered(seed):
    """A model whose orthogonal kernels were taken away from there."""
    model = models.bsnn_mlp(2, 4, "gp_tanh", input_shape=(4,), seed=seed)
    stack = next(x for x in model.layers if isinstance(x, layers.DepthStack))
    kernel = stack.weights[0]
    kernel.assign(array(kernel) + 0.1 * normal(tuple(kernel.shape), seed))
    return model, kernel


@property_of(callbacks.retract, callbacks.Retract)
@rarely
@given(seeds, st.booleans())
def test_kernels_are_brought_back_to_the_nearest(seed, as_callback):
    model, kernel = scattered(seed)
    left, _, right = np.linalg.svd(array(kernel))
    if as_callback:
        callback = callbacks.Retract()
        callback.set_model(model)
        callback.on_train_begin()
    else:
        callbacks.retract(model)
    np.testing.assert_allclose(array(kernel), left @ right, atol=1e-5)
    assert error_of(kernel) < 1e-6


@property_of(callbacks.RecalibrateBatchNorm)
@rarely
@given(seeds, st.booleans())
def test_statistics_are_recalibrated_before_validation_if_asked_for(seed, validation):
    x = normal((12, 4), seed, "float32")
    models_ = [models.batchnorm_mlp(2, 4, input_shape=(4,), seed=seed) for _ in "ab"]
    recalibration.recalibrate(models_[0], x)
    callback = callbacks.RecalibrateBatchNorm(x, validation=validation)
    callback.set_model(models_[1])
    before = models_[1].get_weights()
    callback.on_test_begin()
    expected = models_[0].get_weights() if validation else before
    for a, b in zip(expected, models_[1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    callback.on_train_end()
    for a, b in zip(*(m.get_weights() for m in models_), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@property_of(callbacks.SignalMonitor)
@rarely
@given(seeds, st.none() | st.integers(1, 4), st.integers(1, 6))
def test_the_monitor_measures_as_often_as_it_is_told(seed, every, batches):
    model = models.bsnn_mlp(1, 3, "gp_tanh", input_shape=(4,), seed=seed)
    model.compile(loss="mse")
    x, y = normal((6, 4), seed, "float32"), normal((6, 10), seed, "float32")
    monitor, logs = callbacks.SignalMonitor(x, y, every, jit_compile=False), {}
    monitor.set_model(model)
    monitor.on_train_begin()
    monitor.on_epoch_begin(0)
    for i in range(batches):
        monitor.on_train_batch_end(i, logs)
    monitor.on_epoch_end(0, logs)
    monitor.on_train_end()
    expected = [batches] if every is None else [*range(every, batches + 1, every)]
    assert [*monitor.reports] == expected
    report = diagnostics.signal_report(model, x, y, jit_compile=False)
    for found in monitor.reports.values():
        np.testing.assert_allclose(found.gradient, report.gradient, rtol=1e-5)
    assert ("signal_gradient_ratio" in logs) == bool(expected)


@pytest.mark.slow
@property_of(callbacks.BackupAndRestore)
@rarely
@given(seed=seeds, done=st.integers(1, 2), batch_size=st.sampled_from([4, 8]))
def test_a_run_that_goes_on_ends_as_an_unbroken_one(
    tmp_path_factory, seed, done, batch_size
):
    folder = tmp_path_factory.mktemp("backup")
    x, y = normal((8, 4), seed, "float32"), normal((8, 2), seed + 1, "float32")

    def trained(epochs, folder):
        keras.utils.set_random_seed(seed)
        noise = keras.layers.GaussianNoise(0.1)  # whose state is in the backup
        model = keras.Sequential([keras.Input((4,)), noise, keras.layers.Dense(2)])
        model.compile(keras.optimizers.Adam(), "mse", jit_compile=False)
        backup = callbacks.BackupAndRestore(folder, delete_checkpoint=False)
        settings = {"shuffle": False, "callbacks": [backup], "verbose": 0}
        model.fit(x, y, batch_size, epochs, **settings)
        return model.get_weights()

    trained(done, folder)
    expected = trained(3, tmp_path_factory.mktemp("unbroken"))
    for found, weight in zip(trained(3, folder), expected, strict=True):
        np.testing.assert_array_equal(found, weight)
