"""Signals and gradients in each layer, while a model is trained."""

import functools
import warnings
from numbers import Integral
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bsnn import plots
from keras_bsnn._types import Tensor
from keras_bsnn._warnings import KerasBSNNWarning
from keras_bsnn.callbacks import _tensorboard
from keras_bsnn.diagnostics import SignalMeter, SignalReport


class SignalMonitor(keras.callbacks.Callback):
    """Measures signals and gradients in each layer while a model is trained.

    It adds a summary of `keras_bsnn.diagnostics.signal_report` to the logs of Keras,
    for the history, and for `keras.callbacks.CSVLogger` and `TensorBoard` if they come
    later in the list of callbacks: `signal_gradient_ratio` is the gradient at the first
    layer divided by that at the last; `signal_gradient_min` and `_max`,
    `signal_output_min` and `_max` are taken over the layers with weights;
    `signal_cosine_similarity`, `signal_isometry_gap` and `signal_saturated` are the
    largest in any layer but the last.

    Args:
        x: A batch of inputs to measure on, an array or a structure of arrays.
        y: The targets of these inputs.
        every: Integer, the number of batches from one measurement to the next.
            Defaults to `None`: one measurement after each epoch.
        log_dir: Path of a folder for TensorBoard, which then shows under `signal` these
            numbers, how outputs and gradients are distributed over the layers, and the
            figure `plots.signals`. Defaults to `None`: no such files. It needs the
            package tensorboard.
        stop_if_not_finite: Boolean, whether to end training, with a warning, when an
            output or a gradient is not finite. Defaults to `True`.
        training: Boolean, as in `signal_report`. Defaults to `True`.
        jit_compile: `True`, `False` or `"auto"`, as in `signal_report`. Defaults to
            `"auto"`.

    Attributes:
        reports: Dict from the number of batches so far to a `SignalReport`.

    Raises:
        ValueError: If `every` is not as described, or if the model or the batch are not
            as `signal_report` takes them.

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
        x: Tensor,
        y: Tensor,
        every: int | None = None,
        log_dir: str | Path | None = None,
        stop_if_not_finite: bool = True,
        training: bool = True,
        jit_compile: bool | str = "auto",
    ):
        super().__init__()
        if every is not None and (not isinstance(every, Integral) or every < 1):
            raise ValueError(
                f"`every` must be None or an integer >= 1. Received: every={every!r}"
            )
        self.x, self.y = x, y
        self.every = every
        self.log_dir = log_dir
        self.stop_if_not_finite = stop_if_not_finite
        self.training, self.jit_compile = training, jit_compile
        self.step = 0
        self.reports: dict[int, SignalReport] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.meter = SignalMeter(self.model, self.training, self.jit_compile)
        self.writer = _tensorboard.Writer(self.log_dir) if self.log_dir else None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.before = self.step

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # With `steps_per_execution`, several batches may have passed.
        last, self.step = self.step, self.before + batch + 1
        if self.every and self.step // self.every > last // self.every:
            self._measure(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.every is None:
            self._measure(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.writer:
            self.writer.close()

    def _measure(self, logs):
        if hasattr(self.model, "jax_state_sync"):  # the weights are in Keras' loop
            self.model.jax_state_sync()
        report = self.reports[self.step] = self.meter(self.x, self.y)
        logs.update(short := _short(report))
        if self.writer:
            self._write(self.writer, report, short)
        if self.stop_if_not_finite and not report.is_finite:
            self.model.stop_training = True
            warnings.warn(
                f"Training ends after {self.step} batches. {report.verdict}",
                KerasBSNNWarning,
                stacklevel=2,
            )

    def _write(self, writer, report, short):
        for name, value in short.items():
            writer.scalar(name.replace("_", "/", 1), value, self.step)
        for name in ("root_mean_square", "gradient", "weight_gradient"):
            norms = getattr(report, name)
            drawn = np.log10(norms[norms > 0])
            writer.histogram(f"signal/log10 {name} of layers", drawn, self.step)
        curve = {f"after {self.step} batches": report}
        # Small, because TensorBoard shows it small.
        draw = functools.partial(plots.signals, curve, size=(4, 4), dpi=100)
        writer.image("signal/layers", draw, self.step)


def _short(report):
    """Returns the summary of a report for the logs."""
    trained = report.trained()
    summary = {
        "gradient_ratio": report.gradient[0] / report.gradient[-1],
        "gradient_min": trained.gradient.min(),
        "gradient_max": trained.gradient.max(),
        "output_min": trained.root_mean_square.min(),
        "output_max": trained.root_mean_square.max(),
    }
    for name in ("cosine_similarity", "isometry_gap", "saturated"):
        values = getattr(report, name)[:-1]
        summary[name] = np.nanmax(values, initial=0.0)
    return {f"signal_{name}": float(value) for name, value in summary.items()}
