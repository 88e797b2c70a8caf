"""What goes with networks, of those of convolutions: callbacks, figures, certificates.

They are digits-size, and trained for a few steps.
"""

import functools
import io

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose

from keras_bsnn import diagnostics, export, manifolds, models, plots
from keras_bsnn.callbacks import RecalibrateBatchNorm, Retract, SignalMonitor
from keras_bsnn.ops.gaussian import kernel_map
from keras_bsnn.ops.isometry import jacobian_singular_values
from keras_bsnn.optimizers import StiefelMuon

IS_JAX = keras.backend.backend() == "jax"  # which is slow without XLA
MAKERS = {
    "bsnn_cnn": lambda: StiefelMuon(0.1),
    "batchnorm_cnn": lambda: StiefelMuon(0.05),
    "roaf_cnn": lambda: keras.optimizers.Adam(0.01),
}
KINDS = {
    "bsnn_cnn": "OrthogonalConv2D",
    "batchnorm_cnn": "BatchNormConv2D",
    "roaf_cnn": "ROAFConv2D",
}
DEPTH, ORTHOGONAL = 6, {"bsnn_cnn": 2, "batchnorm_cnn": 2, "roaf_cnn": 0}


def images(count=60):
    x = np.random.default_rng(0).normal(size=(count, 8, 8, 1)).astype("float32")
    return x, np.arange(count) % 10


@functools.cache
def trained(name):
    """A network, and the monitor that has watched it."""
    model = getattr(models, name)(DEPTH, 8, input_shape=(8, 8, 1), seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(MAKERS[name](), loss, jit_compile=IS_JAX)
    x, y = images()
    monitor = SignalMonitor(x, y)
    callbacks = [Retract(), RecalibrateBatchNorm(x, validation=False), monitor]
    if name != "batchnorm_cnn":
        callbacks.pop(1)
    model.fit(x, y, batch_size=20, epochs=2, verbose=0, callbacks=callbacks)
    return model, monitor


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_callbacks(name):
    """Each layer is measured in each epoch, and orthogonal matrices are retracted."""
    model, monitor = trained(name)
    report = [*monitor.reports.values()][-1]
    assert report.kinds.count(KINDS[name]) in (DEPTH, DEPTH + 1)
    assert np.isfinite(report.gradient).all() and report.gradient.min() > 0
    kernels = [*manifolds.constrained(model.trainable_variables)]
    assert len(kernels) == ORTHOGONAL[name]
    for kernel, manifold in kernels:
        assert np.max(array(manifold.error(kernel))) < 1e-6


@pytest.mark.slow
def test_recalibration_is_of_all_places():
    """As in training, each channel is then normalized over the images and places."""
    model, _ = trained("batchnorm_cnn")
    x, _ = images()
    in_evaluation = array(model(x))
    assert_allclose(in_evaluation, model(x, training=True), atol=1e-4)
    assert np.std(in_evaluation) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_figures(name):
    model, monitor = trained(name)
    x, y = images()
    report = diagnostics.signal_report(model, x, y)
    assert len(report.gradient) > DEPTH
    spectrum = jacobian_singular_values(model, x[:2])
    assert spectrum.shape == (2, 10) and spectrum.min() > 0
    drawings = [
        functools.partial(plots.signals, {name: report}),
        functools.partial(plots.heat_map, monitor.reports),
        functools.partial(plots.singular_values, {name: spectrum}),
        report.plot,
    ]
    for draw in drawings:
        draw(file := io.BytesIO())
        assert len(file.getvalue()) > 5000


@pytest.mark.slow
def test_the_kernel_map_of_their_activation():
    """Shaped for the whole depth: orthogonal inputs end with the correlation eta."""
    stack = models.bsnn_cnn(50, 8, eta=0.3, input_shape=(8, 8, 1)).layers[-3]
    activation, correlation = stack.block.activation, np.zeros(1)
    for _ in range(50):
        correlation = kernel_map(activation, correlation)
    assert correlation[0] == pytest.approx(0.3, abs=1e-3)
    plots.kernel_map({"shaped": activation}, file := io.BytesIO())
    assert len(file.getvalue()) > 5000


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow writes these files"
)
@pytest.mark.parametrize("name", MAKERS)
def test_certificates(name, tmp_path):
    """Of each kernel, plain ones too; the orthogonal ones make no length larger."""
    model, _ = trained(name)
    export.saved_model(model, tmp_path / "served")
    kernels = export.verify(tmp_path / "served")["kernels"]
    shapes = [tuple(kernel["shape"]) for kernel in kernels]
    assert shapes[0] == (3, 3, 1, 16) and shapes[-1] == (128, 10)
    orthogonal = [kernel for kernel in kernels if kernel["orthogonal"]]
    assert len(orthogonal) == ORTHOGONAL[name]
    for kernel in orthogonal:
        assert kernel["shape"] == [DEPTH, 8, 8]
        assert kernel["orthogonality_error"] < 1e-6
        assert kernel["largest_singular_value"] == pytest.approx(1, abs=1e-6)
    if name == "roaf_cnn":
        assert (DEPTH, 3, 3, 8, 8) in shapes
