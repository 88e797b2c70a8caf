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

from keras_bsnn.initializers import DepthDecay, HaarOrthogonal
from keras_bsnn.layers import BatchNormDense, DepthStack
from keras_bsnn.ops import _backend
from keras_bsnn.plots import COLORS

INPUTS, CLASSES, COSINE = 784, 10, 0.8
SHRINKAGE = 0.9
REPEATED = 80  # of 100 samples, the number at which the paper's growth is met

ROWS = {
    "orthogonal": {},
    "Gaussian kernels": {"kernel_initializer": "glorot_normal"},
    "repeated samples": {},
    "repeated samples, shrinkage": {"shrinkage": SHRINKAGE},
    "tanh, no gain": {"activation": "tanh"},
    "sin, no gain": {"activation": "sin"},
    "tanh, gain": {"activation": "tanh", "gain": DepthDecay()},
    "sin, gain": {"activation": "sin", "gain": DepthDecay()},
}
PAPER = {
    "orthogonal": (0.30, 0.35, 0.38, 0.41, 0.38, 0.39),
    "Gaussian kernels": (0.67, 0.85, 1.13, 1.65, 4.34, 10.31),
    "repeated samples": (-2.09, -0.99, 0.02, 2.03, 8.25, 28.63),
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
        return {"activation": "tanh", "gain": DepthDecay(float(row.split()[-1]))}
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
    if row.startswith("repeated"):
        x[-round(REPEATED / 100 * len(x)) :] = x[0]
    stack = DepthStack(BatchNormDense(args.width, **settings(row)), depth)
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


def contents(found):
    """Of each row our mean over the seeds, and below it the paper's value."""
    for row in dict.fromkeys(point["row"] for point in found):
        ours = [values(found, row, depth) for depth in depths(found)]
        yield row, *(text(np.mean(v)) if v else "" for v in ours)
        if row in PAPER:
            theirs = dict(zip(DEPTHS, PAPER[row], strict=False))
            cells = (theirs.get(depth) for depth in depths(found))
            yield "paper", *("" if v is None else text(v) for v in cells)


def text(value):
    return f"{value:.2f}" if math.isfinite(value) else "overflow"


def draw(found, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in ROWS if any(point["row"] == row for point in found)]
    for color, row in zip(COLORS, rows, strict=False):
        means = [
            np.mean(values(found, row, depth) or np.nan) for depth in depths(found)
        ]
        axes.plot(depths(found), means, "o-", color=color, label=row, linewidth=2)
        if row in PAPER:
            axes.plot(DEPTHS[: len(PAPER[row])], PAPER[row], "x", color=color)
    axes.set(xscale="log", ylim=(-4, 14))
    axes.set_xlabel("layers; crosses are the paper's", fontsize=12)
    axes.set_ylabel("log of the first gradient's norm", fontsize=12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=10, frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
