"""Training that survives a kill at any moment."""

import copy
import os
from typing import Any

import keras

from keras_bsnn._types import Variables
from keras_bsnn.callbacks import _file
from keras_bsnn.ops import _check

Logs = dict[str, Any] | None

UNTRAINED: dict[str, Any] = {
    "epoch": 0,
    "batch": 0,
    "batches": 0,
    "epochs": [],
    "history": {},
}


class BackupAndRestore(keras.callbacks.Callback):
    """Training that resumes after a kill, and ends with the weights of an unbroken run.

    Unlike `keras.callbacks.BackupAndRestore`, this callback is crash-safe. The weights,
    the optimizer's variables, the states of random number generators and the number of
    batches are one file, and a new file replaces the old one in one step, once it is
    complete and on the disk. A kill at any moment, even during the backup, costs only
    what was trained since the last backup. The same command then resumes from there.

    Place the callback last in the list, so that the backup includes what the other
    callbacks do to weights and learning rate at the end of an epoch.

    The model and the data must be the same in each process. This holds for data in a
    fixed order (`shuffle=False`), and for a stream that begins where the run stopped:
    `keras_bsnn.datasets.load(..., seed=0, start=backup.batches)`, or
    `stream.skip(backup.batches)`. It does not hold for `fit(x, y, shuffle=True)`, or
    for `tf.data` that is reshuffled in each epoch: a resumed run would have another
    order than an unbroken one.

    The history that `fit` returns covers the whole run. Metrics of an epoch that was
    resumed in the middle are those of its remaining batches. The callback does not
    restore the state of other callbacks (`EarlyStopping`; the patience of
    `ReduceLROnPlateau`, although the rate is restored), nor random numbers that do not
    come from a `keras.random.SeedGenerator`, as on PyTorch those of dropout outside a
    stack unless it has a `seed`. `CSVLogger(append=True)` may list an epoch twice if
    the run was killed during the backup of that epoch.

    On JAX several processes may train together, even if each of them holds only a part
    of a weight (`keras.distribution`). The first process writes.

    Args:
        backup_dir: The path of a folder for this run alone, which all of its processes
            can read.
        save_freq: `"epoch"` saves at the end of each epoch. An integer of at least 1
            also saves each time after that number of batches. Defaults to `"epoch"`.
        delete_checkpoint: A boolean: whether to remove the backup when training ends.
            Defaults to `True`.

    Attributes:
        batches: The number of batches that the run in `backup_dir` was trained on, or 0
            if there is none. Reading it tells the callback that the data begin there.

    Raises:
        ValueError: An argument is invalid; the backup is damaged, or of another model;
            or the backup was made in the middle of an epoch, and the data do not begin
            there because `batches` was not read.

    Source: this package, with the interface of Keras.

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

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        is_count = _check.is_integer(save_freq) and save_freq >= 1
        if save_freq != "epoch" and not is_count:
            raise _check.refusal(
                "save_freq", "'epoch' or a number of batches", save_freq
            )
        if not backup_dir:
            raise _check.refusal("backup_dir", "a folder", backup_dir)
        self.save_freq = save_freq
        self.delete_checkpoint = _check.boolean("delete_checkpoint", delete_checkpoint)
        self._path = _file.path_in(backup_dir)
        self._data_begin_at = 0

    @property
    def batches(self) -> int:
        saved = _file.progress(self._path) or UNTRAINED
        self._data_begin_at = saved["batches"]
        return saved["batches"]

    def on_train_begin(self, logs: Logs = None) -> None:
        _file.remove_unfinished(self._path)
        saved = _file.progress(self._path)
        if saved:
            self._check_data(saved)
            _file.restore(self._path, self._variables())
        done = saved or UNTRAINED
        # Keras offers callbacks no other way to set the epoch that `fit` begins with.
        self.model._initial_epoch = done["epoch"]
        self._earlier = done
        self._epochs, self._history = copy.deepcopy((done["epochs"], done["history"]))
        self._batches = self._last_saved = done["batches"]
        self._skipped = done["batch"]
        self._steps = self.params["steps"]
        if self.save_freq != "epoch" and self._steps is None:
            raise ValueError(
                "`save_freq` must be 'epoch' if the number of batches in an epoch is "
                "unknown: give `fit` its `steps_per_epoch`. "
                f"Received: save_freq={self.save_freq}"
            )

    def _check_data(self, saved: dict[str, Any]) -> None:
        """Raises `ValueError` unless the data begin where the backup was made."""
        if saved["batch"] and self._data_begin_at != saved["batches"]:
            raise ValueError(
                f"The backup {str(self._path)!r} was made in the middle of an epoch, "
                f"after {saved['batch']} of its batches: give `fit` data that begin "
                "there, after the first `callback.batches` of the run."
            )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.model._initial_epoch = None  # or the next `fit` would also begin there
        self._epoch, self._before = epoch, self._batches

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._batches = self._before + batch + 1
        in_epoch = self._skipped + batch + 1
        if self._steps is not None and in_epoch >= self._steps:
            if self._skipped and not self.model.stop_training:
                # Ends the epoch that was resumed in the middle, and not the training.
                # The callback itself is a true value that it can tell from the `True`
                # of another callback, which comes before `on_epoch_end` below.
                self.model.stop_training = self
        elif self._is_due():
            self._save(self._epoch, in_epoch)

    def _is_due(self) -> bool:
        if self.save_freq == "epoch":
            return False
        return self._batches // self.save_freq > self._last_saved // self.save_freq

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.model.stop_training is self:
            self.model.stop_training = False
        self._skipped = 0
        self._epochs.append(epoch)
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(value)
        self._save(epoch + 1, 0)

    def on_train_end(self, logs: Logs = None) -> None:
        self._complete(getattr(self.model, "history", None))
        if self.delete_checkpoint:
            _file.remove(self._path)

    def _complete(self, history: Any) -> None:
        """Puts the epochs of earlier processes before those of this one."""
        if not isinstance(history, keras.callbacks.History):
            return
        history.epoch[:0] = self._earlier["epochs"]
        for name, values in self._earlier["history"].items():
            history.history[name] = values + history.history.get(name, [])

    def _save(self, epoch: int, batch: int) -> None:
        progress = {
            "epoch": epoch,
            "batch": batch,
            "batches": self._batches,
            "epochs": self._epochs,
            "history": self._history,
        }
        _file.save(self._path, self._variables(), progress)
        self._last_saved = self._batches

    def _variables(self) -> Variables:
        # On JAX, `self.model` fetches the weights from the loop of `fit`.
        model, optimizer = self.model, self.model.optimizer
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        return [*model.variables, *optimizer.variables]
