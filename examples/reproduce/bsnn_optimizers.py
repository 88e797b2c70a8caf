"""What does an optimizer on the tangent space change? One epoch with each.

    python examples/reproduce/bsnn_optimizers.py --dataset mnist

SGD and Adam with the constraint alone and within `Stiefel`, and `StiefelMuon` with 3, 4
and 5 Newton-Schulz steps, each at several learning rates; those of one seed start from
the same weights and see the same batches. The gradient of the layers is the Euclidean
one.
"""

import functools

import _training
import keras
import numpy as np
from _runner import Choice, Experiment, markdown

from keras_bsnn import models
from keras_bsnn.optimizers import Stiefel, StiefelMuon

SGD = functools.partial(keras.optimizers.SGD, momentum=0.9)
Adam = keras.optimizers.Adam
SGD_RATES, ADAM_RATES = (1e-3, 3e-3, 1e-2, 3e-2), (1e-4, 3e-4, 1e-3, 3e-3)
OPTIMIZERS = {
    "SGD": (SGD, SGD_RATES),
    "Stiefel(SGD)": (lambda rate: Stiefel(SGD(rate)), SGD_RATES),
    "Adam": (Adam, ADAM_RATES),
    "Stiefel(Adam)": (lambda rate: Stiefel(Adam(rate)), ADAM_RATES),
    **{
        f"StiefelMuon, {n} steps": (
            functools.partial(StiefelMuon, ns_steps=n),
            (0.05, 0.1, 0.2),
        )
        for n in (3, 4, 5)
    },
}


def rows(args):
    for name in args.optimizers:
        for seed in args.seeds:
            for rate in OPTIMIZERS[name][1]:
                yield {"optimizer": name, "learning_rate": rate, "seed": seed}


def run(args, optimizer, learning_rate, seed):
    keras.utils.set_random_seed(seed)
    data = _training.load(args.dataset, args.batch_size, True, seed)
    more = {**_training.shape_of(args.dataset), "seed": seed, "tangent_gradient": False}
    model = models.bsnn_mlp(args.depth, args.width, args.activation, **more)
    schedule = _training.warm_up_and_decay(learning_rate, len(data["fit"]))
    return _training.fit(model, OPTIMIZERS[optimizer][0](schedule), data)[-1]


def table(records):
    """Of each optimizer the rate with the best mean over the seeds."""
    lines = []
    for name in OPTIMIZERS:
        rows = [row for row in records if row["optimizer"] == name]
        accuracies = {row["learning_rate"]: [] for row in rows}
        for row in rows:
            accuracies[row["learning_rate"]].append(row["accuracy"])
        if rows:
            best = max(sorted(accuracies), key=lambda rate: np.mean(accuracies[rate]))
            mean, spread = (
                100 * np.mean(accuracies[best]),
                100 * np.ptp(accuracies[best]),
            )
            lines.append([name, f"{best:g}", f"{mean:.2f}", f"{spread:.2f}"])
    heads = ("", "best learning rate", "accuracy in %", "range over the seeds")
    return markdown(heads, lines)


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows,
        options={
            **_training.images(depth=100, width=64),
            **{"activation": "relu", "batch_size": 256, "seeds": [0, 1]},
            "optimizers": Choice(OPTIMIZERS),
        },
    ).main()
