"""What the scripts that train share: data, schedule, evaluation."""

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


def load(dataset, batch_size, validate, seed):
    """Batches to fit, and what to evaluate on: test data, or a tenth held out."""
    fit, held_out = ("train[:90%]", "train[90%:]") if validate else ("train", "test")
    return {
        "fit": datasets.load(dataset, fit, batch_size, seed=seed),
        "train": datasets.load(dataset, fit, EVALUATION_BATCH, shuffle=False),
        "held_out": datasets.load(dataset, held_out, EVALUATION_BATCH, shuffle=False),
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
    """Of each layer, on a batch of training data."""
    batch = next(iter(datasets.load(dataset, "train", 128, seed=seed)))
    return diagnostics.signal_norms(model, *batch)


def signal_spread(norms):
    """Largest over smallest norm of all layers but the logits."""
    curves = {"forward": norms.forward[:-1], "gradient": norms.gradient[:-1]}
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: significant(max(c) / min(c)) for name, c in curves.items()}
