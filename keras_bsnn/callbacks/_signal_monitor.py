"""Signals and gradients in each layer, while a model is trained."""

import functools
import warnings

import keras
import numpy as np

from keras_bsnn import plots
from keras_bsnn._public import public
from keras_bsnn.callbacks import _tensorboard
from keras_bsnn.diagnostics import SignalMeter


@public
class SignalMonitor(keras.callbacks.Callback):
    """Measures signals and gradients in each layer while a model is trained.

    What `keras_bsnn.diagnostics.signal_report` finds goes in short into the logs, where
    `keras.callbacks.CSVLogger`, `TensorBoard` and the history have it, if they come
    later in the list of callbacks: `signal_gradient_ratio` is the gradient at the first
    layer over that at the last; `signal_gradient_min` and `_max`, `signal_output_min`
    and `_max` are over the layers with weights, and `signal_cosine_similarity`,
    `signal_isometry_gap` and `signal_saturated` the largest in any layer but the last.

    Args:
        x, y: a batch of inputs and targets, on which to measure.
        every: number of batches from one measurement to the next, or `None` for one
            after each epoch.
        log_dir: folder for TensorBoard, which shows there under `signal` these numbers,
            how outputs and gradients are distributed over the layers, and the figure
            `plots.signals`; `None` for no such files. Needs the package tensorboard.
        stop_if_not_finite: whether to end training, with a warning, where an output or
            a gradient is not finite.
        training, jit_compile: as of `signal_report`.

    Attributes:
        reports: dict from the number of batches so far to a `SignalReport`.

    Raises:
        ValueError: `every` is not as above, or the model or the batch are not as
            `signal_report` takes them.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> monitor = keras_bsnn.callbacks.SignalMonitor(x, y)
    >>> history = model.fit(x, y, epochs=3, callbacks=[monitor], verbose=0)
    >>> len(history.history["signal_gradient_ratio"])
    3
    """

    def __init__(
        self,
        x,
        y,
        every=None,
        log_dir=None,
        stop_if_not_finite=True,
        training=True,
        jit_compile="auto",
    ):
        super().__init__()
        if every is not None and (not isinstance(every, int) or every < 1):
            raise ValueError(
                f"`every` must be None or an integer >= 1. Received: every={every!r}"
            )
        self.x, self.y = x, y
        self.every = every
        self.log_dir = log_dir
        self.stop_if_not_finite = stop_if_not_finite
        self.training, self.jit_compile = training, jit_compile
        self.step, self.reports = 0, {}

    def on_train_begin(self, logs=None):
        self.meter = SignalMeter(self.model, self.training, self.jit_compile)
        self.writer = self.log_dir and _tensorboard.Writer(self.log_dir)

    def on_epoch_begin(self, epoch, logs=None):
        self.before = self.step

    def on_train_batch_end(self, batch, logs=None):
        # With `steps_per_execution`, several batches have passed.
        last, self.step = self.step, self.before + batch + 1
        if self.every and self.step // self.every > last // self.every:
            self._measure(logs)

    def on_epoch_end(self, epoch, logs=None):
        if self.every is None:
            self._measure(logs)

    def on_train_end(self, logs=None):
        if self.writer:
            self.writer.close()

    def _measure(self, logs):
        if hasattr(self.model, "jax_state_sync"):  # the weights are in its loop
            self.model.jax_state_sync()
        report = self.reports[self.step] = self.meter(self.x, self.y)
        logs.update(short := _short(report))
        if self.writer:
            self._write(report, short)
        if self.stop_if_not_finite and not report.is_finite:
            self.model.stop_training = True
            warnings.warn(
                f"Training ends after {self.step} batches. {report.verdict}",
                stacklevel=2,
            )

    def _write(self, report, short):
        for name, value in short.items():
            self.writer.scalar(name.replace("_", "/", 1), value, self.step)
        for name in ("root_mean_square", "gradient", "weight_gradient"):
            norms = getattr(report, name)
            drawn = np.log10(norms[norms > 0])
            self.writer.histogram(f"signal/log10 {name} of layers", drawn, self.step)
        curve = {f"after {self.step} batches": report}
        # It is shown small.
        draw = functools.partial(plots.signals, curve, size=(4, 4), dpi=100)
        self.writer.image("signal/layers", draw, self.step)


def _short(report):
    """The most telling numbers, as logs."""
    trained = report.trained()
    found = {
        "gradient_ratio": report.gradient[0] / report.gradient[-1],
        "gradient_min": trained.gradient.min(),
        "gradient_max": trained.gradient.max(),
        "output_min": trained.root_mean_square.min(),
        "output_max": trained.root_mean_square.max(),
    }
    for name in ("cosine_similarity", "isometry_gap", "saturated"):
        values = getattr(report, name)[:-1]
        found[name] = np.nanmax(values, initial=0.0)
    return {f"signal_{name}": float(value) for name, value in found.items()}
