"""What does an optimizer on the tangent space change? One epoch with each.

    python examples/reproduce/bsnn_optimizers.py --dataset mnist

SGD and Adam with the constraint alone and within `Stiefel`, and `StiefelMuon`, each at
several learning rates. At the best rate of `StiefelMuon`: other periods and numbers of
Newton-Schulz steps, and cheaper steps of bounded norm that were tried in place of the
spectral sign. Those of one seed start from the same weights and see the same batches.
The gradient of the layers is the Euclidean one.
"""

import functools

import _training
import keras
import numpy as np
from _runner import Choice, Experiment, markdown
from keras import ops

from keras_bsnn import models
from keras_bsnn.ops import orthogonal, spectral
from keras_bsnn.optimizers import Stiefel, StiefelMuon

SGD = functools.partial(keras.optimizers.SGD, momentum=0.9)
Adam = keras.optimizers.Adam
SGD_RATES, ADAM_RATES = (1e-3, 3e-3, 1e-2, 3e-2), (1e-4, 3e-4, 1e-3, 3e-3)
MUON_RATES, BEST_RATE = (0.05, 0.1, 0.2), 0.1


class OfLargestValues(StiefelMuon):
    """Steps only along the largest singular values of the momentum, and all kernels.

    Found by subspace iteration, which an optimizer would continue from step to step.

    Args:
        rank: how many singular values become 1.
        rest: whether the others are divided by the smallest of them, or become 0.
    """

    def __init__(self, learning_rate, rank, rest):
        super().__init__(learning_rate, period=1)
        self.rank, self.rest = rank, rest

    def _step(self, matrices, momentum, angle):
        tangent = orthogonal.project_tangent(matrices, momentum)
        transposed = ops.swapaxes(tangent, -1, -2)
        right = keras.random.normal((*tangent.shape[:-2], tangent.shape[-1], self.rank))
        for _ in range(4):
            left = orthogonal.qr(ops.matmul(tangent, right))
            right = ops.matmul(transposed, left)
        sign = spectral.spectral_sign(ops.swapaxes(right, -1, -2), 8)
        turn = ops.matmul(left, sign)
        if self.rest:
            smallest = ops.min(ops.norm(right, axis=-2), axis=-1)[..., None, None]
            below = tangent - ops.matmul(left, ops.swapaxes(right, -1, -2))
            turn = turn + below / (smallest + 1e-30)
        turn = orthogonal.project_tangent(matrices, turn)
        return orthogonal.retract(matrices - angle * turn, orthogonal.newton_schulz)


def muon(**kwargs):
    return functools.partial(StiefelMuon, **kwargs), (BEST_RATE,)


def largest(**kwargs):
    return functools.partial(OfLargestValues, **kwargs), (BEST_RATE,)


OPTIMIZERS = {
    "SGD": (SGD, SGD_RATES),
    "Stiefel(SGD)": (lambda rate: Stiefel(SGD(rate)), SGD_RATES),
    "Adam": (Adam, ADAM_RATES),
    "Stiefel(Adam)": (lambda rate: Stiefel(Adam(rate)), ADAM_RATES),
    "StiefelMuon": (StiefelMuon, MUON_RATES),
    "StiefelMuon, all kernels in each step": muon(period=1),
    "StiefelMuon, each in 8 steps": muon(period=8),
    "StiefelMuon, one in each step": muon(period=1000),
    "StiefelMuon, sign of 2 steps": muon(ns_steps=2),
    "StiefelMuon, momentum 0.95": muon(momentum=0.95),
    "divided by the operator norm": largest(rank=1, rest=True),
    "sign of the 8 largest values": largest(rank=8, rest=False),
    "sign of the 8 largest values, others scaled": largest(rank=8, rest=True),
}


def rows(args):
    for name in args.optimizers:
        for seed in args.seeds:
            for rate in OPTIMIZERS[name][1]:
                yield {"optimizer": name, "learning_rate": rate, "seed": seed}


def run(args, optimizer, learning_rate, seed):
    keras.utils.set_random_seed(seed)
    data = _training.load(args.dataset, args.batch_size, True, seed)
    more = {**_training.shape_of(args.dataset), "seed": seed}
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
            **{"activation": "relu", "batch_size": 256, "seeds": [0, 1, 2]},
            "optimizers": Choice(OPTIMIZERS),
        },
    ).main()
