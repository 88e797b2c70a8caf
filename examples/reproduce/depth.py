"""One setting at depth 10 to 10,000: accuracy, and the norms of every layer.

    python examples/reproduce/depth.py --dataset mnist

Width, learning rate, batches, epochs and schedule are the same at each depth. The
figure shows the norms after training.
"""

import types

import _bsnn
import _training
import numpy as np
from _runner import Choice, Experiment, columns

from keras_bsnn import plots

POINTS = 100  # of a curve that is drawn
COMMON = ("dataset", "activation", "width", "epochs", "seed")


def run(args, depth, dataset, activation, width, epochs, seed):
    size = (depth, width, dataset, epochs, seed)
    norms, found = _bsnn.train(_bsnn.RECIPES["best"], f"gp_{activation}", *size)
    forward, layers = _training.thinned(norms.root_mean_square[:-1], POINTS)
    gradient, _ = _training.thinned(norms.gradient[:-1], POINTS)
    norms = {"layer": layers, "forward": forward, "gradient": gradient}
    return {**found, "norms": norms}


def by_depth(records):
    return sorted(records, key=lambda row: row["depth"])


TABLE = {
    "layers": "{depth:,}",
    "train accuracy in %": lambda row: f"{100 * row['train']:.2f}",
    "test accuracy in %": lambda row: f"{100 * row['held_out']:.2f}",
    "minutes": lambda row: f"{row['seconds'] / 60:.1f}",
    "forward norms, max/min": "{largest_over_smallest_norm[forward]:.2f}",
    "gradient norms, max/min": "{largest_over_smallest_norm[gradient]:.2f}",
}


def figure(records, path):
    curves = {}
    for row in records:
        label = f"{row['depth']:,} layers: {row['held_out']:.1%} on test data"
        layers = row["norms"]["layer"]
        share = np.linspace(0, layers[-1], POINTS)
        forward, gradient = (
            np.interp(share, layers, row["norms"][k]) for k in ("forward", "gradient")
        )
        norms = {"root_mean_square": forward, "gradient": gradient}
        curves[label] = types.SimpleNamespace(**norms)
    plots.signals(curves, path, xlabel="% of the depth")


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        rows={"depth": "depths", **{name: name for name in COMMON}},
        figure=figure,
        arrange=by_depth,
        options={
            **_training.images(width=64),
            **{"depths": [10, 100, 1000, 10_000], "epochs": 4, "seed": 0},
            "activation": Choice(_bsnn.FUNCTIONS, "relu"),
        },
        record="bsnn_depth",
    ).main()
