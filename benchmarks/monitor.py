"""What `callbacks.SignalMonitor` costs at its default frequency, once an epoch.

    python benchmarks/monitor.py
    KERAS_BACKEND=jax python benchmarks/monitor.py --page docs/results/signals.md

In one call of `fit`, with an epoch of as many batches as MNIST has, the seconds of each
epoch and those of the measurement at its end. The first one traces the model.
"""

import time

import keras
import numpy as np
from runner import BACKENDS, Experiment, columns

from keras_bsnn import callbacks, models

BATCH, FEATURES, CLASSES = 128, 784, 10


class TimedMonitor(callbacks.SignalMonitor):
    """Measures itself, and the epochs without itself."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.epochs, self.own = [], []

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        middle = time.perf_counter()
        super().on_epoch_end(epoch, logs)
        self.epochs.append(round(middle - self.start, 3))
        self.own.append(round(time.perf_counter() - middle, 3))


def run(args, depth, units, batches):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batches * BATCH, FEATURES)).astype("float32")
    y = rng.integers(0, CLASSES, len(x))
    model = models.bsnn_mlp(depth, units, classes=CLASSES, input_shape=(FEATURES,))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, 0.9), loss, jit_compile=True)
    monitor = TimedMonitor(x[:BATCH], y[:BATCH])
    model.fit(x, y, BATCH, epochs=args.epochs, callbacks=[monitor], verbose=0)
    return {"epochs": monitor.epochs, "measurements": monitor.own}


def of_epoch(row):
    """The median of those after the first."""
    return np.median(row["epochs"][1:])


def of_measurement(row):
    return np.median(row["measurements"][1:])


TABLE = {
    "": lambda row: BACKENDS[row["backend"]],
    "layers": "{depth} x {units}",
    "epoch": lambda row: f"{of_epoch(row):.1f} s",
    "first measurement": "{measurements[0]:.1f} s",
    "each further one": lambda row: f"{of_measurement(row):.2f} s",
    "share": lambda row: f"{of_measurement(row) / of_epoch(row):.1%}",
}

if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        rows={"depth": "depth", "units": "units", "batches": "batches"},
        options={"depth": 200, "units": 128, "batches": 469, "epochs": 4},
        record="monitor_{backend}.json",
    ).main()
