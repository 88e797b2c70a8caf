"""One setting at depth 10 to 10,000: accuracy, and the norms of every layer.

    python examples/reproduce/depth.py --dataset mnist

Width, learning rate, batches, epochs and schedule are the same at each depth. The
figure shows the norms after training.
"""

import types

import _bsnn
import _training
import numpy as np
from _runner import Choice, Experiment, markdown

from keras_bsnn import plots

POINTS = 100  # of a curve that is drawn


def rows(args):
    same = ("dataset", "activation", "width", "epochs", "seed")
    common = {key: getattr(args, key) for key in same}
    return [{**common, "depth": depth} for depth in args.depths]


def run(args, dataset, activation, width, epochs, seed, depth):
    size = (depth, width, dataset, epochs, seed)
    norms, found = _bsnn.train(_bsnn.RECIPES["best"], f"gp_{activation}", *size)
    forward, layers = _training.thinned(norms.root_mean_square[:-1], POINTS)
    gradient, _ = _training.thinned(norms.gradient[:-1], POINTS)
    norms = {"layer": layers, "forward": forward, "gradient": gradient}
    return {**found, "norms": norms}


def table(records):
    heads = ("layers", "train accuracy in %", "test accuracy in %", "minutes")
    heads += ("forward norms, max/min", "gradient norms, max/min")
    lines = []
    for row in by_depth(records):
        accuracies = (f"{100 * row[which]:.2f}" for which in ("train", "held_out"))
        spreads = (f"{s:.2f}" for s in row["largest_over_smallest_norm"].values())
        minutes = f"{row['seconds'] / 60:.1f}"
        lines.append([f"{row['depth']:,}", *accuracies, minutes, *spreads])
    return markdown(heads, lines)


def by_depth(records):
    return sorted(records, key=lambda row: row["depth"])


def figure(records, path):
    curves = {}
    for row in by_depth(records):
        label = f"{row['depth']:,} layers: {row['held_out']:.1%} on test data"
        layers = row["norms"]["layer"]
        share = np.linspace(0, layers[-1], POINTS)
        forward, gradient = (
            np.interp(share, layers, row["norms"][k]) for k in ("forward", "gradient")
        )
        curves[label] = types.SimpleNamespace(
            root_mean_square=forward, gradient=gradient
        )
    plots.signals(curves, path, xlabel="% of the depth")


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows,
        figure,
        options={
            **_training.images(width=64),
            **{"depths": [10, 100, 1000, 10_000], "epochs": 4, "seed": 0},
            "activation": Choice(_bsnn.FUNCTIONS, "relu"),
        },
        record="bsnn_depth",
    ).main()
