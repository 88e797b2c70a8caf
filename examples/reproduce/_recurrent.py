"""What the scripts on long memories share: networks, one budget for all, the record."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from _runner import Choice, Experiment, columns, significant

from keras_bsnn import models
from keras_bsnn.plots import figure

POINTS = 50  # of a curve
HELD_OUT = 1000  # sequences
ROAF, BASELINES = "ROAF", ("LSTM", "GRU", "SimpleRNN")


class Task(NamedTuple):
    """What is to be learned from an endless stream of sequences.

    Attributes:
        stream: function of the length, the batch size and a seed; the data set.
        memoryless: function of the length; the loss of the best answer without memory.
        loss: of the model.
        features, outputs: of a step.
        roaf: function of the length; further arguments of `roaf_rnn`.
        return_sequences: whether each step has a target.
        padding: steps of a sequence beyond its length.
        baseline_jit: whether the layers of Keras are compiled by XLA: with it they copy
            all outputs in each step, where they return them.
    """

    stream: Callable
    memoryless: Callable
    loss: Any
    features: int
    outputs: int
    roaf: Callable
    return_sequences: bool = False
    padding: int = 0
    baseline_jit: bool = True


def experiment(script, task, **defaults):
    """That of a task, with what is its own of the options."""
    return Experiment(
        script,
        lambda args, network, **_: trained(task, network, args),
        columns(TABLE),
        rows={"network": "networks"},
        figure=draw,
        options={
            "networks": Choice([ROAF, *BASELINES]),
            **{"length": 10_000, "units": 128, "batch_size": 50},
            **{"steps": 1500, "minutes": 20.0},  # of training, at most
            **{"learning_rate": 1e-2, "baseline_rate": 1e-3, "seed": 0},
            **defaults,
        },
    )


def network(task, name, args):
    shape = (args.length + task.padding, task.features)
    sequences = {"return_sequences": task.return_sequences}
    if name != ROAF:
        return baseline(name, args.units, task.outputs, shape, **sequences)
    more = {**sequences, **task.roaf(args.length), "seed": args.seed}
    return models.roaf_rnn(args.units, task.outputs, input_shape=shape, **more)


def baseline(name, units, outputs, input_shape, **kwargs):
    """A recurrent layer of Keras, and a dense layer that reads its state."""
    memory = getattr(keras.layers, name)(units, **kwargs)
    return keras.Sequential(
        [keras.Input(input_shape), memory, keras.layers.Dense(outputs)]
    )


def trained(task, name, args):
    """The record of a network: its curve, and its loss on sequences not seen before."""
    keras.utils.set_random_seed(args.seed)
    model = network(task, name, args)
    is_ours = name == ROAF
    rate = args.learning_rate if is_ours else args.baseline_rate
    jit = is_ours or task.baseline_jit
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), task.loss, jit_compile=jit)
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces twice
    budget = Budget(rate, args.steps, 60 * args.minutes)
    data, fresh = (
        task.stream(args.length, args.batch_size, seed=2 * args.seed + k)
        for k in (0, 1)
    )
    model.fit(data.take(args.steps), verbose=0, callbacks=[budget])
    loss = model.evaluate(fresh.take(-(-HELD_OUT // args.batch_size)), verbose=0)
    return {
        **{"length": args.length, "units": args.units},
        "parameters": model.count_params(),
        "steps": budget.step,
        "minutes": round(budget.seconds / 60, 2),
        "loss": significant(loss),
        "memoryless": significant(task.memoryless(args.length)),
        "curve": budget.curve(),
    }


class Budget(keras.callbacks.Callback):
    """Ends training after a number of steps, or of seconds; keeps the losses.

    The learning rate rises over the first twentieth of that, and then falls to zero
    along a cosine. The first step, which compiles, is not counted in the seconds.
    """

    def __init__(self, learning_rate, steps, seconds):
        super().__init__()
        self.learning_rate, self.steps, self.limit = learning_rate, steps, seconds
        self.step, self.seconds, self.losses, self.times = 0, 0.0, [], []

    def on_train_batch_begin(self, batch, logs=None):
        share = max((self.step + 1) / self.steps, self.seconds / self.limit)
        wave = np.cos(np.pi * min(1.0, max(0.0, share - 0.05) / 0.95))
        factor = min(1.0, share / 0.05) * (1 + wave) / 2
        self.model.optimizer.learning_rate = self.learning_rate * float(factor)
        self.model.reset_metrics()  # else the loss is a mean since the first step

    def on_train_batch_end(self, batch, logs=None):
        if self.step == 0:
            self.begin = time.perf_counter()
        self.step += 1
        self.losses.append(logs["loss"])
        self.seconds = time.perf_counter() - self.begin
        self.times.append(self.seconds)
        late = self.seconds > self.limit
        self.model.stop_training = late or not np.isfinite(logs["loss"])

    def curve(self):
        """Means over equal shares of the steps; step and time are the last of each."""
        parts = np.array_split(np.arange(self.step), min(self.step, POINTS))
        return [
            {
                "step": int(part[-1]) + 1,
                "seconds": round(self.times[part[-1]], 1),
                "loss": significant(np.mean(np.take(self.losses, part))),
            }
            for part in parts
        ]


def without_memory(row):
    ratio = row["memoryless"] / float(row["loss"])
    return f"{float(f'{ratio:.2g}'):,g}"


TABLE = {
    "": "{network}",
    "parameters": "{parameters:,}",
    "steps": "{steps:,}",
    "minutes": "{minutes:.1f}",
    "loss": lambda row: f"{float(row['loss']):.2g}",
    "without memory / loss": without_memory,
}


def draw(records, path):
    with figure(path) as panel:
        for row in records:
            minutes = [point["seconds"] / 60 for point in row["curve"]]
            losses = [float(point["loss"]) for point in row["curve"]]
            panel.plot(minutes, losses, label=row["network"])
        panel.axhline(records[0]["memoryless"], color="gray", linestyle="--")
        panel.set(yscale="log", xlabel="minutes of training")
        panel.set_title("loss; dashed: without memory")
        panel.legend()
