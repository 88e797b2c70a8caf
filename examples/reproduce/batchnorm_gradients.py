"""Gradients at initialization against depth, with batch normalization.

    python examples/reproduce/batchnorm_gradients.py

Logarithm of the norm of the gradient of the first hidden kernel, for a batch of
correlated normal inputs: with orthogonal and with Gaussian kernels, with samples that
repeat, with activations, and with gains of different exponents before these. It leaves
a JSON, which a second call completes, and the figure.

Source of the paper's values: Meterez et al., arXiv 2310.02012, read off its figures.
"""

import json
import math
from pathlib import Path

import _script
import keras
import numpy as np

from keras_bsnn import _backend
from keras_bsnn.initializers import DepthDecay, HaarOrthogonal
from keras_bsnn.layers import BatchNormDense, DepthStack
from keras_bsnn.plots import figure

INPUTS, CLASSES, COSINE = 784, 10, 0.8

# Arguments of the layer, and the share of the samples that are one and the same. With
# 0.8 gradients grow as fast as the paper's, which does not tell its share. Without its
# mean, a batch of 100 spans 99 dimensions, one too few for 100 units: gradients then
# grow after all, so slowly that it shows behind 10,000 layers.
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
DEPTHS = (5, 50, 100, 200, 500, 1000)


def main():
    args = arguments()
    _script.use_threads(args.threads)
    found = json.loads(args.out.read_text())["result"] if args.out.exists() else []
    for row in [] if args.show else [*args.rows, *swept(args)]:
        for depth in args.depths:
            for seed in args.seeds:
                add_point(found, {"row": row, "depth": depth, "seed": seed}, args)
    title = f"log of the norm of the first gradient, {args.width} units"
    heads = ("", *(f"{depth:,}" for depth in depths(found)))
    rows = contents(found)
    _script.publish(args, "reproduce/batchnorm_gradients.py", title, heads, rows)
    draw(found, args.figure)


def arguments():
    parser = _script.parser(__doc__)
    parser.set_defaults(width=100)
    add = parser.add_argument
    add("--batch-size", type=int, default=100)
    add("--rows", nargs="*", choices=ROWS, default=[*ROWS])
    add("--exponents", nargs="*", type=float, default=[], help="of tanh, to sweep")
    add("--depths", nargs="+", type=int, default=[*DEPTHS])
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--out", type=Path, default=_script.RESULTS / "batchnorm_gradients.json")
    add("--figure", type=Path, default="docs/batchnorm_gradients.png")
    return parser.parse_args()


def swept(args):
    return [f"tanh, exponent {exponent:g}" for exponent in args.exponents]


def settings(row):
    if "exponent" in row:
        gain = DepthDecay(float(row.split()[-1]))
        return {"activation": "tanh", "gain": gain}, 0
    return ROWS[row]


def add_point(found, key, args):
    if any(key.items() <= point.items() for point in found):
        return
    value = log_gradient(key["row"], key["depth"], key["seed"], args)
    found.append({**key, "log_gradient": value})
    print(found[-1], flush=True)
    _script.write(args.out, settings=_script.settings(args), result=found)


def log_gradient(row, depth, seed, args):
    keras.utils.set_random_seed(seed)
    x, y = batch(args.batch_size, seed)
    arguments, repeated = settings(row)
    x[len(x) - round(repeated * len(x)) :] = x[0]
    block = BatchNormDense(args.width, **arguments)
    # Beyond, what enters each layer would take gigabytes.
    stack = DepthStack(block, depth, checkpoint_every=100 if depth > 20_000 else None)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.Dense(
                args.width, use_bias=False, kernel_initializer=HaarOrthogonal()
            ),
            stack,
            keras.layers.Dense(CLASSES),
        ]
    )
    of_batch = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    (kernels,) = stack.trainable_variables

    def loss(values):
        with keras.StatelessScope([(kernels, values[0])]):
            return of_batch(y, model(x, training=True))

    (gradient,) = _backend.gradients(loss, [_backend.read(kernels)])
    first = keras.ops.convert_to_numpy(gradient[0]).astype("float64")
    norm = float(np.linalg.norm(first))
    return round(math.log(norm), 3) if 0 < norm < math.inf else str(norm)


def batch(samples, seed):
    """Normal inputs, any two of which have a cosine of about `COSINE`, and labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, INPUTS))
    x = math.sqrt(COSINE) * rng.normal(size=INPUTS) + math.sqrt(1 - COSINE) * x
    return x.astype("float32"), rng.integers(0, CLASSES, samples)


def depths(found):
    return sorted({point["depth"] for point in found})


def values(found, row, depth):
    return [
        float(point["log_gradient"])
        for point in found
        if (point["row"], point["depth"]) == (row, depth)
    ]


def rows_of(found):
    there = dict.fromkeys(point["row"] for point in found)
    return [row for row in dict.fromkeys([*ROWS, *there]) if row in there]


def contents(found):
    """Of each row our mean over the seeds, and below it the paper's value."""
    for row in rows_of(found):
        ours = [values(found, row, depth) for depth in depths(found)]
        yield row, *(text(np.mean(v)) if v else "" for v in ours)
        if row in PAPER:
            theirs = dict(zip(DEPTHS, PAPER[row], strict=False))
            cells = (theirs.get(depth) for depth in depths(found))
            yield "paper", *("" if v is None else text(v) for v in cells)


def text(value):
    return f"{value:.2f}" if math.isfinite(value) else "overflow"


def draw(found, path):
    """Linear layers, activations, and tanh with gains of several exponents."""
    rows = rows_of(found)
    swept = [row for row in rows if "exponent" in row]
    bent = [row for row in rows if row.endswith("gain")]
    linear = [row for row in rows if row not in (*swept, *bent)]
    with figure(path, rows=3, size=(7, 9.8)) as panels:
        for panel, members in zip(panels, (linear, bent, swept), strict=True):
            for row in members:
                draw_row(panel, found, row)
            panel.set(xscale="log", ylim=(-4.5, 14))
            panel.set_ylabel("log of the first gradient")
            panel.legend(fontsize=10, loc="upper left")
        panels[-1].set_xlabel("layers; crosses are the paper's")


def draw_row(panel, found, row):
    points = [(d, np.mean(v)) for d in depths(found) if (v := values(found, row, d))]
    (line,) = panel.plot(*zip(*points, strict=True), marker="o", label=row)
    theirs = PAPER.get(row, ())
    panel.plot(DEPTHS[: len(theirs)], theirs, "x", color=line.get_color())


if __name__ == "__main__":
    main()
