"""What `callbacks.SignalMonitor` costs at its default frequency, once an epoch.

    python benchmarks/monitor.py
    KERAS_BACKEND=jax python benchmarks/monitor.py --readme README.md

In one call of `fit`, with an epoch of as many batches as MNIST has, the seconds of each
epoch and those of the measurement at its end. The first one traces the model. It leaves
a JSON for each backend, of which the table is made.
"""

import argparse
import json
import time
from pathlib import Path

import _table
import keras
import numpy as np

from keras_bsnn import callbacks, models
from keras_bsnn._record import environment, fill

RESULTS = Path(__file__).parent / "results"
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


def main():
    args = arguments()
    if not args.show:
        path = args.out / f"monitor_{keras.backend.backend()}.json"
        record = {**environment(), "result": measured(args)}
        path.write_text(json.dumps(record, indent=1) + "\n")
    files = sorted(args.out.glob("monitor_*.json"))
    text = table([json.loads(file.read_text()) for file in files])
    print(text)
    if args.readme:
        fill(args.readme, "monitor.py", text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--depth", type=int, default=200)
    add("--units", type=int, default=128)
    add("--batches", type=int, default=469, help="of an epoch")
    add("--epochs", type=int, default=4)
    add("--out", type=Path, default=RESULTS)
    add("--show", action="store_true", help="what is there, no measurement")
    add("--readme", help="a file to write the table into, between its markers")
    return parser.parse_args()


def measured(args):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(args.batches * BATCH, FEATURES)).astype("float32")
    y = rng.integers(0, CLASSES, len(x))
    model = models.bsnn_mlp(
        args.depth, args.units, classes=CLASSES, input_shape=(FEATURES,)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, 0.9), loss, jit_compile=True)
    monitor = TimedMonitor(x[:BATCH], y[:BATCH])
    model.fit(
        x, y, batch_size=BATCH, epochs=args.epochs, callbacks=[monitor], verbose=0
    )
    sizes = {key: getattr(args, key) for key in ("depth", "units", "batches")}
    return {**sizes, "epochs": monitor.epochs, "measurements": monitor.own}


def table(records):
    heads = ("", "layers", "epoch", "first measurement", "each further one", "share")
    lines = []
    for record in records:
        found = record["result"]
        epoch, further = (
            float(np.median(found[key][1:])) for key in ("epochs", "measurements")
        )
        lines.append(
            (
                _table.BACKENDS[record["backend"]],
                f"{found['depth']} x {found['units']}",
                f"{epoch:.1f} s",
                f"{found['measurements'][0]:.1f} s",
                f"{further:.2f} s",
                f"{further / epoch:.1%}",
            )
        )
    return _table.markdown(heads, lines)


if __name__ == "__main__":
    main()
