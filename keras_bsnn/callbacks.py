"""Callbacks of `model.fit`."""

import functools
import warnings

import keras
import numpy as np

from keras_bsnn import _backup, _retraction, _tensorboard, plots
from keras_bsnn._public import public
from keras_bsnn.diagnostics import SignalMeter
from keras_bsnn.recalibration import Recalibration

UNTRAINED = {"epoch": 0, "batch": 0, "batches": 0}
END_OF_EPOCH = "the end of an epoch that was resumed in the middle"


@public
class Retract(keras.callbacks.Callback):
    """Keeps kernels orthogonal where their constraint does not act.

    The kernels with the constraint `keras_bsnn.constraints.Orthogonal`, also those in a
    `DepthStack` and in frozen layers, may leave the orthogonal matrices by something
    else than a step of the optimizer: an initializer of another kind, `set_weights`,
    loading, an exponential moving average (`use_ema=True`), LoRA. This callback looks
    at them when training, an evaluation or a prediction begins, after each epoch, and
    when training ends. Each one whose error is above what the constraint allows (twice
    its `tolerance`, 1e-5, or the rounding of its dtype) is replaced by the nearest
    orthogonal matrix. A look takes less time than a training step.

    When training ends, all trainable kernels are: a float32 kernel ends with an error
    below 1e-6.

    Place it in the list of callbacks behind those that change weights
    (`keras.callbacks.SwapEMAWeights`), and before those that save them or measure
    (`keras.callbacks.ModelCheckpoint`, `RecalibrateBatchNorm`). `SwapEMAWeights` then
    also takes orthogonal averages back, and goes on averaging from these; the weights
    that it trains are the optimizer's.

    Of a layer with LoRA, the sum `kernel + alpha / rank * A @ B` becomes orthogonal, by
    a change of the frozen kernel alone. `OrthogonalDense` has no LoRA, and layers of
    Keras have none as long as they have a `kernel_constraint`; after
    `layer.kernel_constraint = None` they do, and the built kernel keeps its constraint.

    Warns:
        UserWarning: kernels had to be brought back, that is, their errors were above
            what the constraint allows: how many, and the path and the error of the
            worst. Or the entries of a kernel are not finite: it is left as it is. Each
            at most once in a call of `fit`, `evaluate` or `predict`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> history = model.fit(x, y, callbacks=[keras_bsnn.callbacks.Retract()], verbose=0)
    """

    def set_model(self, model):
        """Keras calls it once for each call of `fit`, `evaluate` or `predict`."""
        super().set_model(model)
        self._warned = set()

    def on_train_begin(self, logs=None):
        self._bring_back()

    def on_test_begin(self, logs=None):
        self._bring_back()

    def on_predict_begin(self, logs=None):
        self._bring_back()

    def on_epoch_end(self, epoch, logs=None):
        self._bring_back()

    def on_train_end(self, logs=None):
        # The optimizer's averages are in the model by now.
        self._bring_back(exactly=True)

    def _bring_back(self, exactly=False):
        found = _retraction.bring_back(self.model, exactly)
        for kind in found.keys() - self._warned:
            self._warned.add(kind)
            warnings.warn(found[kind], stacklevel=3)


@public
def retract(model):
    """What the callback `Retract` does when training ends, at once.

    For instance after `model.set_weights` or `model.load_weights`.

    Args:
        model: a built Keras model, or layer.

    Warns:
        UserWarning: as `Retract`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.set_weights([w + 1e-6 for w in model.get_weights()])
    >>> keras_bsnn.callbacks.retract(model)
    """
    for message in _retraction.bring_back(model, exactly=True).values():
        warnings.warn(message, stacklevel=2)


@public
class BackupAndRestore(keras.callbacks.Callback):
    """Training that goes on where it was killed, to the weights of an unbroken run.

    As `keras.callbacks.BackupAndRestore`, but crash-safe: weights, the optimizer's
    variables, the states of random number generators and the number of batches are one
    file, and a new one takes the place of the old in one step, when it is whole and on
    the disk. A kill at any moment, also while it is written, costs what was trained
    since the last backup; the same command then goes on from there.

    Place it last in the list of callbacks: what the others do to weights and learning
    rate at the end of an epoch is then in the backup.

    The model must be the same, and so must the data: which batch comes when must not
    depend on the process. A fixed order does not (`shuffle=False`), nor does a stream
    that begins where the run stopped: `keras_bsnn.datasets.load(..., seed=0,
    start=backup.batches)`, or `stream.skip(backup.batches)`. With `fit(x, y,
    shuffle=True)`, or `tf.data` that is shuffled anew in each epoch, a resumed run has
    another order than an unbroken one.

    Not restored are the history, what other callbacks remember (`EarlyStopping`; the
    patience of `ReduceLROnPlateau`, though the rate is), and random numbers without a
    `keras.random.SeedGenerator`. `CSVLogger(append=True)` may have the epoch twice in
    whose backup a run was killed. Metrics of an epoch that was resumed in the middle
    are those of its rest.

    Args:
        backup_dir: a local folder, for this run alone.
        save_freq: `"epoch"`, or a number of batches after which to save besides.
        delete_checkpoint: whether to remove the backup when training ends.

    Attributes:
        batches: number of batches that the run in `backup_dir` was trained on; 0 if
            there is none.

    Raises:
        ValueError: an argument is not as above; the backup is damaged, or of another
            model; or it was made in the middle of an epoch, and the data do not begin
            there, for `batches` was not asked for.

    Source: this package; the interface is that of Keras.

    Example:

    >>> import keras, keras_bsnn, tempfile
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(8, 8, 1))
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    >>> backup = keras_bsnn.callbacks.BackupAndRestore(tempfile.mkdtemp())
    >>> load = keras_bsnn.datasets.load
    >>> steps = len(load("digits", "train", 64))
    >>> data = load("digits", "train", 64, seed=0, start=backup.batches)
    >>> history = model.fit(
    ...     data, steps_per_epoch=steps, epochs=2, callbacks=[backup], verbose=0)
    """

    def __init__(self, backup_dir, save_freq="epoch", delete_checkpoint=True):
        super().__init__()
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(
                "`save_freq` must be 'epoch' or a number of batches. "
                f"Received: save_freq={save_freq!r}"
            )
        if not backup_dir:
            raise ValueError(
                f"`backup_dir` must be a folder. Received: backup_dir={backup_dir!r}"
            )
        self.save_freq = save_freq
        self.delete_checkpoint = delete_checkpoint
        self._path = _backup.path_in(backup_dir)
        self._data_begin_at = 0

    @property
    def batches(self):
        saved = _backup.progress(self._path) or UNTRAINED
        self._data_begin_at = saved["batches"]
        return saved["batches"]

    def on_train_begin(self, logs=None):
        _backup.remove_unfinished(self._path)
        saved = _backup.progress(self._path)
        if saved:
            self._check_data(saved)
            _backup.restore(self._path, self._variables())
        done = saved or UNTRAINED
        # Keras knows no other way for a callback to tell where `fit` begins.
        self.model._initial_epoch = done["epoch"]
        self._batches = self._last_saved = done["batches"]
        self._skipped = done["batch"]
        self._steps = self.params["steps"]
        if self.save_freq != "epoch" and self._steps is None:
            raise ValueError(
                "`save_freq` must be 'epoch' where the number of batches in an epoch "
                "is not known: give `fit` its `steps_per_epoch`. "
                f"Received: save_freq={self.save_freq}"
            )

    def _check_data(self, saved):
        if saved["batch"] and self._data_begin_at != saved["batches"]:
            raise ValueError(
                f"The backup {str(self._path)!r} was made in the middle of an epoch, "
                f"behind {saved['batch']} of its batches: give `fit` data that begin "
                "there, behind the first `callback.batches` of the run."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self.model._initial_epoch = None  # or the next `fit` would begin there, too
        self._epoch, self._before = epoch, self._batches

    def on_train_batch_end(self, batch, logs=None):
        self._batches = self._before + batch + 1
        in_epoch = self._skipped + batch + 1
        if self._steps is not None and in_epoch >= self._steps:
            if self._skipped:
                self.model.stop_training = END_OF_EPOCH
        elif self._is_due():
            self._save(self._epoch, in_epoch)

    def _is_due(self):
        if self.save_freq == "epoch":
            return False
        return self._batches // self.save_freq > self._last_saved // self.save_freq

    def on_epoch_end(self, epoch, logs=None):
        # If it is another value, a callback stops the training.
        if self.model.stop_training == END_OF_EPOCH:
            self.model.stop_training = False
        self._skipped = 0
        self._save(epoch + 1, 0)

    def on_train_end(self, logs=None):
        if self.delete_checkpoint:
            _backup.remove(self._path)

    def _save(self, epoch, batch):
        progress = {"epoch": epoch, "batch": batch, "batches": self._batches}
        _backup.save(self._path, self._variables(), progress)
        self._last_saved = self._batches

    def _variables(self):
        # On JAX, `self.model` brings the weights from the loop of `fit`.
        model, optimizer = self.model, self.model.optimizer
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        return [*model.variables, *optimizer.variables]


@public
class RecalibrateBatchNorm(keras.callbacks.Callback):
    """Before each evaluation and when training ends, recalibrates the statistics.

    So the metrics of `validation_data` are those of the statistics that the trained
    model will have.

    Args:
        dataset: as of `keras_bsnn.recalibration.recalibrate`; 10,000 training samples
            are plenty for 100 units.
        folder: as there.
        validation: whether to recalibrate before each validation, too.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.batchnorm_mlp(10, 16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((64, 4)), keras.random.normal((64, 10))
    >>> callback = keras_bsnn.callbacks.RecalibrateBatchNorm(x)
    >>> history = model.fit(x, y, batch_size=32, callbacks=[callback], verbose=0)
    """

    def __init__(self, dataset, folder=None, validation=True):
        super().__init__()
        self.dataset, self.validation = dataset, validation
        self.recalibrate = Recalibration(folder)

    def on_test_begin(self, logs=None):
        if self.validation:
            self.recalibrate(self.model, self.dataset)

    def on_train_end(self, logs=None):
        self.recalibrate(self.model, self.dataset)


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
