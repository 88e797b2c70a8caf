"""What the scripts on long memories share: networks, one budget for all, the record."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import _script
import keras
import numpy as np

from keras_bsnn import models
from keras_bsnn.plots import figure

POINTS = 50  # of a curve
HELD_OUT = 1000  # sequences
ROAF, BASELINES = "ROAF", ("LSTM", "GRU", "SimpleRNN")


class Task(NamedTuple):
    """What is to be learned from an endless stream of sequences.

    Attributes:
        script: that runs it.
        stream: of the length, the batch size and a seed; the data set.
        memoryless: of the length; the loss of the best answer without a memory.
        loss: of the model.
        features, outputs: of a step.
        length, units, batch_size, steps, learning_rate: what it takes by default.
        roaf: of the length; further arguments of `roaf_rnn`.
        return_sequences: whether each step has a target.
        padding: steps of a sequence beyond its length.
        baseline_jit: whether the layers of Keras are compiled by XLA: with it they copy
            all outputs in each step, where they return them.
    """

    script: str
    stream: Callable
    memoryless: Callable
    loss: Any
    features: int
    outputs: int
    length: int
    units: int
    batch_size: int
    steps: int
    learning_rate: float
    roaf: Callable
    return_sequences: bool = False
    padding: int = 0
    baseline_jit: bool = True


def main(task, doc):
    args = arguments(task, doc)
    _script.use_threads(args.threads)
    found = json.loads(args.out.read_text())["result"] if args.out.exists() else []
    done = {row["network"] for row in found}
    for name in args.networks:
        if name not in done and not args.show:
            found.append(trained(task, name, args))
            _script.write(args.out, settings=_script.settings(args), result=found)
    heads = ("", "parameters", "steps", "minutes", "loss", "without memory / loss")
    title = f"{found[0]['length']:,} steps in time, {found[0]['units']} units"
    _script.publish(args, task.script, title, heads, contents(found))
    draw(found, args.figure)


def arguments(task, doc):
    stem = Path(task.script).stem
    parser = _script.parser(doc, of_images=False)
    add = parser.add_argument
    add("--networks", nargs="+", choices=(ROAF, *BASELINES), default=[ROAF, *BASELINES])
    add("--length", type=int, default=task.length)
    add("--units", type=int, default=task.units)
    add("--batch-size", type=int, default=task.batch_size)
    add("--steps", type=int, default=task.steps, help="of training, at most")
    add("--minutes", type=float, default=20.0, help="of training, at most")
    add("--learning-rate", type=float, default=task.learning_rate, help="of ROAF")
    add("--baseline-rate", type=float, default=1e-3, help="of the others")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=_script.RESULTS / f"{stem}.json")
    add("--figure", type=Path, default=Path(f"docs/{stem}.png"))
    return parser.parse_args()


def network(task, name, args):
    shape = (args.length + task.padding, task.features)
    if name == ROAF:
        return models.roaf_rnn(
            args.units,
            task.outputs,
            input_shape=shape,
            return_sequences=task.return_sequences,
            seed=args.seed,
            **task.roaf(args.length),
        )
    return baseline(
        name, args.units, task.outputs, shape, return_sequences=task.return_sequences
    )


def baseline(name, units, outputs, input_shape, **kwargs):
    """A recurrent layer of Keras, and a dense layer that reads its state."""
    memory = getattr(keras.layers, name)(units, **kwargs)
    return keras.Sequential(
        [keras.Input(input_shape), memory, keras.layers.Dense(outputs)]
    )


def trained(task, name, args):
    """The row of a network: its curve, and its loss on sequences not seen before."""
    keras.utils.set_random_seed(args.seed)
    model = network(task, name, args)
    is_ours = name == ROAF
    rate = args.learning_rate if is_ours else args.baseline_rate
    model.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0),
        task.loss,
        jit_compile=is_ours or task.baseline_jit,
    )
    budget = Budget(rate, args.steps, 60 * args.minutes)
    data, fresh = (
        task.stream(args.length, args.batch_size, seed=2 * args.seed + k)
        for k in (0, 1)
    )
    model.fit(data.take(args.steps), verbose=0, callbacks=[budget])
    loss = model.evaluate(fresh.take(-(-HELD_OUT // args.batch_size)), verbose=0)
    row = {
        "network": name,
        "length": args.length,
        "units": args.units,
        "parameters": model.count_params(),
        "steps": budget.step,
        "minutes": round(budget.seconds / 60, 2),
        "loss": _script.significant(loss),
        "memoryless": _script.significant(task.memoryless(args.length)),
        "curve": budget.curve(),
    }
    print({key: value for key, value in row.items() if key != "curve"}, flush=True)
    return row


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
                "loss": _script.significant(np.mean(np.take(self.losses, part))),
            }
            for part in parts
        ]


def contents(found):
    for row in found:
        ratio = row["memoryless"] / float(row["loss"])
        yield (
            row["network"],
            f"{row['parameters']:,}",
            f"{row['steps']:,}",
            f"{row['minutes']:.1f}",
            f"{float(row['loss']):.2g}",
            f"{float(f'{ratio:.2g}'):,g}",
        )


def draw(found, path):
    with figure(path) as panel:
        for row in found:
            minutes = [point["seconds"] / 60 for point in row["curve"]]
            losses = [float(point["loss"]) for point in row["curve"]]
            panel.plot(minutes, losses, label=row["network"])
        panel.axhline(found[0]["memoryless"], color="gray", linestyle="--")
        panel.set(yscale="log", xlabel="minutes of training")
        panel.set_title("loss; dashed: without memory")
        panel.legend()
