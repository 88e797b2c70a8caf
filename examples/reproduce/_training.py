"""What the scripts that train share: data, schedule, evaluation, resuming."""

import json
import time

import keras
import numpy as np
from _script import significant

from keras_bsnn import datasets, diagnostics

EVALUATION_BATCH = 500


def warm_up_and_decay(learning_rate, steps):
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=learning_rate,
        warmup_steps=max(1, steps // 20),
        decay_steps=steps - steps // 20,
    )


def compile_model(model, optimizer):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )


def load(dataset, batch_size, validate, seed, read=datasets.load, share=90):
    """Batches to fit, and what to evaluate on: test data, or a tenth held out.

    Args:
        read: a function like `datasets.load`.
        share: of the training data that is not held out, in percent.
    """
    parts = (f"train[:{share}%]", f"train[{share}%:]")
    fit, held_out = parts if validate else ("train", "test")
    return {
        "fit": read(dataset, fit, batch_size, seed=seed),
        "train": read(dataset, fit, EVALUATION_BATCH, shuffle=False),
        "held_out": read(dataset, held_out, EVALUATION_BATCH, shuffle=False),
    }


class Row:
    """A network that is trained epoch by epoch, and goes on from where it was left.

    Args:
        record: path of a JSON with its `result`, of which `curve` has the epochs.
        checkpoint: path of a `.keras` file.
        start: of no arguments; the compiled model and the result before training.
        write: of the record's path and a result.
    """

    def __init__(self, record, checkpoint, start, write):
        self.record, self.checkpoint, self.write = record, checkpoint, write
        if record.exists() and checkpoint.exists():
            self.result = json.loads(record.read_text())["result"]
            self.model = keras.models.load_model(checkpoint)
        else:
            self.model, self.result = start()
            self.result["curve"] = []

    def train(self, data, epochs, seconds=np.inf, observe=lambda model: {}):
        """Up to a number of epochs, or past a number of seconds.

        Args:
            data: as of `load`.
            observe: of the model, after each epoch; what else to keep of the last.
        """
        curve = self.result["curve"]
        while len(curve) < epochs and sum(p["seconds"] for p in curve) < seconds:
            curve.append(_epoch(self.model, data))
            print(self.record.stem, curve[-1], flush=True)
            self.result |= observe(self.model)
            self._save()
            self.write(self.record, self.result)

    def _save(self):
        """In one moment: what is there stays until the other is whole."""
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_name(f"partial_{self.checkpoint.name}")
        self.model.save(partial)
        partial.replace(self.checkpoint)


def _epoch(model, data):
    start = time.perf_counter()
    history = model.fit(data["fit"], shuffle=False, verbose=0).history
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 1),
        "loss": significant(history["loss"][-1]),
        "accuracy": evaluate(model, data["held_out"]),
    }


class Clock(keras.callbacks.Callback):
    """Evaluates after every `every` steps; its seconds are those of training alone.

    Args:
        data: what to evaluate on.
        every: number of steps.
        until: an accuracy at which training stops, or `None`.
        limit: seconds after which it stops, or `None`.
    """

    def __init__(self, data, every, until=None, limit=None):
        super().__init__()
        self.data, self.every, self.until, self.limit = data, every, until, limit
        self.curve = []

    def on_train_begin(self, logs=None):
        self.steps = 0
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps % self.every == 0:
            self.evaluate(logs)

    def evaluate(self, logs):
        pause = time.perf_counter()
        seconds = pause - self.begin
        accuracy = evaluate(self.model, self.data)
        loss = significant(logs["loss"])
        self.curve.append(
            {
                "step": self.steps,
                "seconds": round(seconds, 1),
                "loss": loss,
                "accuracy": accuracy,
            }
        )
        reached = self.until is not None and accuracy >= self.until
        late = self.limit is not None and seconds >= self.limit
        self.model.stop_training = reached or late or not np.isfinite(logs["loss"])
        self.begin += time.perf_counter() - pause


def evaluate(model, data):
    """Accuracy, in a loop of its own: `evaluate` within `fit` would reset its state."""
    right = total = 0
    for images, labels in data.as_numpy_iterator():
        predicted = np.argmax(model.predict_on_batch(images), axis=-1)
        right += int(np.sum(predicted == labels))
        total += len(labels)
    return round(right / total, 4)


def signal_norms(model, dataset, seed):
    """Of each layer with weights, on a batch of training data, in evaluation."""
    batch = next(iter(datasets.load(dataset, "train", 128, seed=seed)))
    return diagnostics.signal_report(model, *batch, training=False).trained()


def signal_spread(norms):
    """Largest over smallest norm of all layers but the logits."""
    curves = {"forward": norms.root_mean_square[:-1], "gradient": norms.gradient[:-1]}
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: significant(max(c) / min(c)) for name, c in curves.items()}
