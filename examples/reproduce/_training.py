"""What the scripts that train share: data, schedule, evaluation, resuming."""

import time

import keras
import numpy as np
from _runner import Choice, significant

from keras_bsnn import datasets, diagnostics
from keras_bsnn.layers import DepthStack

EVALUATION_BATCH = 500


def images(dataset="mnist", depth=200, width=128):
    """The options of scripts on images."""
    return {
        "dataset": Choice(datasets.IMAGE_SETS, dataset),
        **{"depth": depth, "width": width},
    }


def shape_of(dataset):
    """The keywords of our models for a data set."""
    image_set = datasets.IMAGE_SETS[dataset]
    return {"classes": image_set.classes, "input_shape": image_set.shape}


def stack_of(model):
    """The `DepthStack` among the layers of a model."""
    return next(layer for layer in model.layers if isinstance(layer, DepthStack))


def warm_up_and_decay(learning_rate, steps):
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=learning_rate,
        warmup_steps=max(1, steps // 20),
        decay_steps=steps - steps // 20,
    )


def compile_model(model, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=True)
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces twice


def load(dataset, batch_size, validate, seed, read=datasets.load, share=90, **fitted):
    """Batches to fit, and what to evaluate on: test data, or a tenth held out.

    Args:
        read: a function like `datasets.load`.
        share: percentage of the training data that is not held out.
        fitted: further keywords of `read` for the batches to fit.
    """
    parts = (f"train[:{share}%]", f"train[{share}%:]")
    fit, held_out = parts if validate else ("train", "test")
    return {
        "fit": read(dataset, fit, batch_size, seed=seed, **fitted),
        "train": read(dataset, fit, EVALUATION_BATCH, shuffle=False),
        "held_out": read(dataset, held_out, EVALUATION_BATCH, shuffle=False),
    }


def fit(model, optimizer, data, epochs=1, callbacks=(), **clock):
    """Trains a model, evaluating it after each epoch; returns its curve.

    Args:
        clock: keywords of `Clock` that differ from an evaluation after each epoch.
    """
    compile_model(model, optimizer)
    clock = Clock(data["held_out"], **{"every": len(data["fit"]), **clock})
    model.fit(
        data["fit"],
        epochs=epochs,
        shuffle=False,  # the pipeline does
        verbose=0,
        callbacks=[clock, *callbacks],
    )
    return clock.curve


def by_epochs(model, data, checkpoint, curve, epochs, seconds=np.inf):
    """Trains a model epoch by epoch, from where it was left; yields it and its curve.

    Args:
        model: function of no arguments; the compiled model before training.
        checkpoint: path of a `.keras` file, written after each epoch.
        curve: that of an earlier call, with an entry for each epoch.
        epochs, seconds: past which it does not go on.
    """
    goes_on = curve and checkpoint.exists()
    model = keras.models.load_model(checkpoint) if goes_on else model()
    curve = [*curve] if goes_on else []
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    while len(curve) < epochs and sum(p["seconds"] for p in curve) < seconds:
        start = time.perf_counter()
        loss = model.fit(data["fit"], shuffle=False, verbose=0).history["loss"][-1]
        point = {"seconds": round(time.perf_counter() - start, 1)}
        point["loss"] = significant(loss)
        curve.append({**point, "accuracy": evaluate(model, data["held_out"])})
        # In one moment: what is there stays until the other is whole.
        partial = checkpoint.with_name(f"partial_{checkpoint.name}")
        model.save(partial)
        partial.replace(checkpoint)
        yield model, curve


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
        point = {"step": self.steps, "seconds": round(seconds, 1)}
        point["loss"] = significant(logs["loss"])
        self.curve.append({**point, "accuracy": accuracy})
        reached = self.until is not None and accuracy >= self.until
        late = self.limit is not None and seconds >= self.limit
        self.model.stop_training = reached or late or not np.isfinite(logs["loss"])
        self.begin += time.perf_counter() - pause


def evaluate(model, data):
    """Accuracy, in a loop of its own: `evaluate` within `fit` would reset its state."""
    right = total = 0
    for batch, labels in data.as_numpy_iterator():
        predicted = np.argmax(model.predict_on_batch(batch), axis=-1)
        right += int(np.sum(predicted == labels))
        total += len(labels)
    return round(right / total, 4)


def signal_norms(model, dataset, seed):
    """Of each layer with weights, on a batch of training data, in evaluation."""
    batch = next(iter(datasets.load(dataset, "train", 128, seed=seed)))
    return diagnostics.signal_report(model, *batch, training=False).trained()


def thinned(values, points):
    """So many of the values at even distances, or all, and their indices."""
    kept = np.unique(np.linspace(0, len(values) - 1, points).round().astype(int))
    return [significant(value) for value in values[kept]], kept.tolist()


def minutes(record):
    return f"{sum(point['seconds'] for point in record['curve']) / 60:.0f}"


def has_all_epochs(args, record):
    """Whether nothing is left of what `by_epochs` was asked for."""
    seconds = sum(point["seconds"] for point in record["curve"])
    late = seconds >= 60 * getattr(args, "minutes", np.inf)
    epochs = getattr(args, "stop_after", None) or args.epochs
    return late or len(record["curve"]) >= epochs
