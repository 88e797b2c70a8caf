"""How long until 97 % of held-out images are right? Optimizers side by side.

    python examples/reproduce/bsnn_time.py --dataset mnist

A row is one training, from the same weights for all of one seed, at the best learning
rate of `bsnn_optimizers.py`; it ends when the accuracy is reached. The seconds
are those of the steps with their compilation, without evaluation. Nothing else
should run at the same time.
"""

import functools

import _training
import keras
import numpy as np
from _runner import Choice, Experiment, markdown

from keras_bsnn import models
from keras_bsnn.optimizers import StiefelMuon

OPTIMIZERS = {
    "SGD": (functools.partial(keras.optimizers.SGD, momentum=0.9), 0.01),
    "StiefelMuon, all kernels in each step": (
        functools.partial(StiefelMuon, period=1),
        0.1,
    ),
    "StiefelMuon": (StiefelMuon, 0.1),
}


def run(args, seed, optimizer):
    keras.utils.set_random_seed(seed)
    data = _training.load(args.dataset, args.batch_size, True, seed)
    more = {**_training.shape_of(args.dataset), "seed": seed}
    model = models.bsnn_mlp(args.depth, args.width, args.activation, **more)
    make, rate = OPTIMIZERS[optimizer]
    schedule = _training.warm_up_and_decay(rate, args.epochs * len(data["fit"]))
    clock = {"every": args.every, "until": args.accuracy}
    curve = _training.fit(model, make(schedule), data, args.epochs, **clock)
    return {**curve[-1], "reached": curve[-1]["accuracy"] >= args.accuracy}


def table(records):
    lines = []
    for name in OPTIMIZERS:
        rows = [row for row in records if row["optimizer"] == name]
        done = [row for row in rows if row["reached"]]
        if done:
            seconds, steps = ([row[key] for row in done] for key in ("seconds", "step"))
            numbers = (f"{np.median(steps):,.0f}", f"{np.median(seconds):.0f} s")
            spread = f"{min(seconds):.0f} to {max(seconds):.0f} s"
        else:
            numbers, spread = ("", ""), ""
        if rows:
            lines.append([name, f"{len(done)} of {len(rows)}", *numbers, spread])
    return markdown(("", "reached", "steps", "seconds", "range"), lines)


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        {"seed": "seeds", "optimizer": "optimizers"},
        options={
            **_training.images(depth=200, width=128),
            **{"activation": "relu", "batch_size": 128, "seeds": [0, 1, 2]},
            **{"epochs": 2, "every": 40, "accuracy": 0.97},
            "optimizers": Choice(OPTIMIZERS),
        },
    ).main()
