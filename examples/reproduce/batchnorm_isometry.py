"""How fast batch normalization makes a batch orthogonal: isometry gap against depth.

    python examples/reproduce/batchnorm_isometry.py

A batch of as many normal samples as there are units goes through layers with Haar
kernels, in the form of the theory. Near isometry the gap is multiplied by d / (d + 2)
in each layer of width d, so that it falls by e in (d + 1) / 2 layers.

Source: Meterez et al., arXiv 2310.02012, theorem 1 and figure 1, off which the paper's
values were read; the rate d / (d + 2) is this package's.
"""

import keras
import numpy as np
from _runner import Experiment, columns, significant

from keras_bsnn.layers import BatchNormDense, DepthStack
from keras_bsnn.ops import isometry
from keras_bsnn.plots import figure

PAPER = {50: 25.0, 100: 48.8}  # layers in which the gap falls by e
NEAR = 0.1  # a gap times the width below which even the smallest eigenvalue is near 1


def run(args, width):
    gaps = np.mean([gaps_of(width, args.depth, seed) for seed in args.seeds], axis=0)
    every = max(1, args.depth // 100)
    # From the line through the logarithms near isometry, while these are exact.
    layers = np.flatnonzero((gaps < NEAR / width) & (gaps > 1e-12))
    slope, _ = np.polyfit(layers, np.log(gaps[layers]), 1)
    shown = [significant(gap, 4) for gap in gaps[::every]]
    return {"layers_per_e": significant(-1 / slope), "gaps": shown, "every": every}


def gaps_of(width, depth, seed):
    """The isometry gaps of the outputs of all layers."""
    keras.utils.set_random_seed(seed)
    block = BatchNormDense(
        width, center=False, scale_by="norm", epsilon=0, dtype="float64"
    )
    layers = DepthStack(block, depth, return_sequences=True)
    x = np.random.default_rng(seed).normal(size=(width, width))
    outputs = np.asarray(layers(x, training=True))
    return np.asarray(isometry.isometry_gap(np.swapaxes(outputs, 0, 1)))


TABLE = {
    "units": "{width}",
    "layers in which the gap falls by e": "{layers_per_e:.1f}",
    "(d + 1) / 2": lambda row: f"{(row['width'] + 1) / 2:.1f}",
    "paper": lambda row: str(PAPER.get(row["width"], "")),
}


def draw(records, path):
    with figure(path) as panel:
        for row in records:
            gaps, width = np.array(row["gaps"]), row["width"]
            layers = 1 + row["every"] * np.arange(len(gaps))
            panel.plot(layers, gaps, label=f"{width} units")
            near = gaps < NEAR / width
            theory = (width / (width + 2)) ** (layers[near] - layers[near][0])
            panel.plot(layers[near], gaps[near][0] * theory, "k:", linewidth=1.5)
        panel.set(yscale="log", ylim=(1e-10, 3), ylabel="isometry gap")
        panel.set_xlabel("layer; dotted: multiplied by d / (d + 2) in each")
        panel.legend()


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        rows={"width": "widths"},
        figure=draw,
        options={"depth": 1000, "widths": [16, 50, 100], "seeds": [*range(20)]},
    ).main()
