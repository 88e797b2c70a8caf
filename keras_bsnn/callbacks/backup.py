"""Training that a kill at any moment does not harm."""

import copy

import keras

from keras_bsnn._public import public
from keras_bsnn.callbacks import _file
from keras_bsnn.ops import _check

UNTRAINED = {"epoch": 0, "batch": 0, "batches": 0, "epochs": [], "history": {}}
END_OF_EPOCH = "the end of an epoch that was resumed in the middle"


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

    The history that `fit` returns is that of the whole run; metrics of an epoch that
    was resumed in the middle are those of its rest. Not restored are what other
    callbacks remember (`EarlyStopping`; the patience of `ReduceLROnPlateau`, though the
    rate is), and random numbers without a `keras.random.SeedGenerator`.
    `CSVLogger(append=True)` may have the epoch twice in whose backup a run was killed.

    On JAX several processes may train together, also where each has but a part of a
    weight (`keras.distribution`). The first one writes.

    Args:
        backup_dir: a folder for this run alone, that all of its processes see.
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
            raise _check.refusal(
                "save_freq", "'epoch' or a number of batches", save_freq
            )
        if not backup_dir:
            raise _check.refusal("backup_dir", "a folder", backup_dir)
        _check.boolean("delete_checkpoint", delete_checkpoint)
        self.save_freq = save_freq
        self.delete_checkpoint = delete_checkpoint
        self._path = _file.path_in(backup_dir)
        self._data_begin_at = 0

    @property
    def batches(self):
        saved = _file.progress(self._path) or UNTRAINED
        self._data_begin_at = saved["batches"]
        return saved["batches"]

    def on_train_begin(self, logs=None):
        _file.remove_unfinished(self._path)
        saved = _file.progress(self._path)
        if saved:
            self._check_data(saved)
            _file.restore(self._path, self._variables())
        done = saved or UNTRAINED
        # Keras knows no other way for a callback to tell where `fit` begins.
        self.model._initial_epoch = done["epoch"]
        self._earlier = done
        self._epochs, self._history = copy.deepcopy((done["epochs"], done["history"]))
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
        self._epochs.append(epoch)
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(value)
        self._save(epoch + 1, 0)

    def on_train_end(self, logs=None):
        self._complete(getattr(self.model, "history", None))
        if self.delete_checkpoint:
            _file.remove(self._path)

    def _complete(self, found):
        """Puts the epochs of earlier runs before what Keras found in this one."""
        if not isinstance(found, keras.callbacks.History):
            return
        found.epoch[:0] = self._earlier["epochs"]
        for name, values in self._earlier["history"].items():
            found.history[name] = values + found.history.get(name, [])

    def _save(self, epoch, batch):
        progress = {
            "epoch": epoch,
            "batch": batch,
            "batches": self._batches,
            "epochs": self._epochs,
            "history": self._history,
        }
        _file.save(self._path, self._variables(), progress)
        self._last_saved = self._batches

    def _variables(self):
        # On JAX, `self.model` brings the weights from the loop of `fit`.
        model, optimizer = self.model, self.model.optimizer
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        return [*model.variables, *optimizer.variables]
