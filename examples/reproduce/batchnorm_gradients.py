"""Gradients at initialization against depth, with batch normalization.

    python examples/reproduce/batchnorm_gradients.py

Logarithm of the norm of the gradient of the first hidden kernel, for a batch of
correlated normal inputs: with orthogonal and with Gaussian kernels, with samples that
repeat, with activations, and with gains of different exponents before these
(`--exponents`, with tanh).

Source of the paper's values: Meterez et al., arXiv 2310.02012, read off its figures.
"""

import itertools
import math

import keras
import numpy as np
from _runner import Choice, Experiment, markdown

from keras_bsnn.initializers import DepthDecay, HaarOrthogonal
from keras_bsnn.layers import BatchNormDense, DepthStack
from keras_bsnn.plots import figure, legend_on_top

INPUTS, CLASSES, COSINE = 784, 10, 0.8

# Arguments of the layer, and the share of the samples that are one and the same. With
# 0.8 gradients grow as fast as the paper's, which does not tell its share. Without its
# mean, a batch of 100 spans 99 dimensions, one too few for 100 units: gradients then
# grow after all, so slowly that it shows after 10,000 layers.
ROWS = {
    "orthogonal": ({}, 0),
    "orthogonal, mean-free": ({"center": False}, 0),
    "Gaussian kernels": ({"kernel_initializer": "glorot_normal"}, 0),
    "50 repeated samples": ({}, 0.5),
    "50 repeated, shrinkage 0.9": ({"shrinkage": 0.9}, 0.5),
    "80 repeated samples": ({}, 0.8),
    "80 repeated, shrinkage 0.9": ({"shrinkage": 0.9}, 0.8),
    "tanh, no gain": ({"activation": "tanh"}, 0),
    "sin, no gain": ({"activation": "sin"}, 0),
    "tanh, gain": ({"activation": "tanh", "gain": DepthDecay()}, 0),
    "sin, gain": ({"activation": "sin", "gain": DepthDecay()}, 0),
}
PAPER = {
    "orthogonal": (0.30, 0.35, 0.38, 0.41, 0.38, 0.39),
    "Gaussian kernels": (0.67, 0.85, 1.13, 1.65, 4.34, 10.31),
    "80 repeated samples": (-2.09, -0.99, 0.02, 2.03, 8.25, 28.63),
    "tanh, no gain": (0.02, 3.79, 8.08, 16.6, 42.1, math.inf),
    "sin, no gain": (0.20, 6.24, 13.0, 26.4),
    "tanh, gain": (-0.50, -0.98, -1.10, -1.21, -1.22, -0.98),
    "sin, gain": (-0.48, -1.12, -1.30, -1.43, -1.49, -1.61),
}
DEPTHS = [5, 50, 100, 200, 500, 1000]


def rows(args):
    swept = [f"tanh, exponent {exponent:g}" for exponent in args.exponents]
    grid = itertools.product([*args.rows, *swept], args.depths, args.seeds)
    return [{"row": row, "depth": depth, "seed": seed} for row, depth, seed in grid]


def run(args, row, depth, seed):
    keras.utils.set_random_seed(seed)
    x, y = batch(args.batch_size, seed)
    if "exponent" in row:
        gain = DepthDecay(float(row.split()[-1]))
        arguments, repeated = {"activation": "tanh", "gain": gain}, 0
    else:
        arguments, repeated = ROWS[row]
    x[len(x) - round(repeated * len(x)) :] = x[0]
    first = keras.layers.Dense(
        args.width, use_bias=False, kernel_initializer=HaarOrthogonal()
    )
    block = BatchNormDense(args.width, **arguments)
    # Beyond, what enters each layer would take gigabytes.
    stack = DepthStack(block, depth, checkpoint_every=100 if depth > 20_000 else None)
    last = keras.layers.Dense(CLASSES)
    model = keras.Sequential([keras.Input(x.shape[1:]), first, stack, last])
    norm = float(np.linalg.norm(gradient(model, stack, x, y)[0]))
    is_normal = 0 < norm < math.inf
    return {"log_gradient": round(math.log(norm), 3) if is_normal else str(norm)}


def gradient(model, stack, x, y):
    """That of the kernels: the momentum of SGD after one step, but for its sign."""
    (kernels,) = stack.trainable_variables
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    jit_compile = keras.backend.backend() == "jax"
    model.compile(optimizer, loss, jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces twice
    model.train_on_batch(x, y)
    momentum = next(v for v in optimizer.variables if v.shape == kernels.shape)
    return keras.ops.convert_to_numpy(momentum).astype("float64")


def batch(samples, seed):
    """Normal inputs, any two of which have a cosine of about `COSINE`, and labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, INPUTS))
    x = math.sqrt(COSINE) * rng.normal(size=INPUTS) + math.sqrt(1 - COSINE) * x
    return x.astype("float32"), rng.integers(0, CLASSES, samples)


def means(records):
    """Dict from a row to a dict from the depths to the mean over the seeds."""
    found = {}
    for point in records:
        values = found.setdefault(point["row"], {}).setdefault(point["depth"], [])
        values.append(float(point["log_gradient"]))
    ours = {
        row: {d: np.mean(v) for d, v in sorted(found[row].items())} for row in found
    }
    return {row: ours[row] for row in dict.fromkeys([*ROWS, *ours]) if row in ours}


def table(records):
    """For each row our mean over the seeds, and below it the paper's value."""
    depths = sorted({point["depth"] for point in records})
    lines = []
    for row, ours in means(records).items():
        lines.append([row, *(text(ours.get(depth)) for depth in depths)])
        if row in PAPER:
            theirs = dict(zip(DEPTHS, PAPER[row], strict=False))
            lines.append(["paper", *(text(theirs.get(depth)) for depth in depths)])
    return markdown(["", *(f"{depth:,}" for depth in depths)], lines)


def text(value):
    if value is None:
        return ""
    return f"{value:.2f}" if math.isfinite(value) else "overflow"


def draw(records, path):
    """Linear layers, activations, and tanh with gains of several exponents."""
    found = means(records)
    swept = [row for row in found if "exponent" in row]
    bent = [row for row in found if row.endswith("gain")]
    linear = [row for row in found if row not in (*swept, *bent)]
    with figure(path, rows=3, size=(7, 11.5)) as panels:
        for panel, members in zip(panels, (linear, bent, swept), strict=True):
            for row in members:
                points = zip(*found[row].items(), strict=True)
                (line,) = panel.plot(*points, marker="o", label=row)
                theirs = PAPER.get(row, ())
                panel.plot(DEPTHS[: len(theirs)], theirs, "x", color=line.get_color())
            panel.set(xscale="log", ylim=(-4.5, 14))
            panel.set_ylabel("log of the first gradient")
            legend_on_top(panel, ncols=2)
        panels[-1].set_xlabel("layers; crosses are the paper's")


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows,
        draw,
        options={
            **{"width": 100, "batch_size": 100, "rows": Choice(ROWS)},
            **{"exponents": [], "depths": DEPTHS, "seeds": [0, 1, 2]},
        },
    ).main()
