"""How fast batch normalization makes a batch orthogonal: isometry gap against depth.

    python examples/reproduce/batchnorm_isometry.py

A batch of as many normal samples as there are units goes through layers with Haar
kernels, in the form of the theory. Near isometry the gap is multiplied by d / (d + 2)
in each layer of width d, so that it falls by e in (d + 1) / 2 layers. It leaves a JSON
and the figure.

Source: Meterez et al., arXiv 2310.02012, theorem 1 and figure 1, off which the paper's
values were read; the rate d / (d + 2) is this package's.
"""

import json
from pathlib import Path

import _script
import keras
import numpy as np

from keras_bsnn.layers import BatchNormDense, DepthStack
from keras_bsnn.ops import isometry
from keras_bsnn.plots import figure

PAPER = {50: 25.0, 100: 48.8}  # layers in which the gap falls by e
NEAR = 0.1  # a gap times the width below which even the smallest eigenvalue is near 1


def main():
    args = arguments()
    _script.use_threads(args.threads)
    if args.show:
        found = json.loads(args.out.read_text())["result"]
    else:
        found = [measure(width, args) for width in args.widths]
        _script.write(args.out, settings=_script.settings(args), result=found)
    heads = ("units", "layers in which the gap falls by e", "(d + 1) / 2", "paper")
    rows = contents(found)
    _script.publish(
        args, "reproduce/batchnorm_isometry.py", "Isometry gap", heads, rows
    )
    draw(found, args.figure)


def arguments():
    parser = _script.parser(__doc__)
    parser.set_defaults(depth=1000)
    add = parser.add_argument
    add("--widths", nargs="+", type=int, default=[16, 50, 100])
    add("--seeds", nargs="+", type=int, default=[*range(20)])
    add("--out", type=Path, default=_script.RESULTS / "batchnorm_isometry.json")
    add("--figure", type=Path, default="docs/batchnorm_isometry.png")
    return parser.parse_args()


def measure(width, args):
    gaps = np.mean([gaps_of(width, args.depth, seed) for seed in args.seeds], axis=0)
    return {
        "width": width,
        "layers_per_e": _script.significant(layers_per_e(gaps, width)),
        "gaps": [float(f"{gap:.3e}") for gap in gaps[:: max(1, args.depth // 100)]],
        "every": max(1, args.depth // 100),
    }


def gaps_of(width, depth, seed):
    """Of what leaves each layer."""
    keras.utils.set_random_seed(seed)
    block = BatchNormDense(
        width, center=False, scale_by="norm", epsilon=0, dtype="float64"
    )
    layers = DepthStack(block, depth, return_sequences=True)
    x = np.random.default_rng(seed).normal(size=(width, width))
    outputs = np.asarray(layers(x, training=True))
    return np.asarray(isometry.isometry_gap(np.swapaxes(outputs, 0, 1)))


def layers_per_e(gaps, width):
    """From the line through the logarithms near isometry, while these are exact."""
    layers = np.flatnonzero((gaps < NEAR / width) & (gaps > 1e-12))
    slope, _ = np.polyfit(layers, np.log(gaps[layers]), 1)
    return -1 / slope


def contents(found):
    for row in found:
        width, layers = row["width"], row["layers_per_e"]
        paper = PAPER.get(width)
        theory = f"{(width + 1) / 2:.1f}"
        yield str(width), f"{layers:.1f}", theory, "" if paper is None else str(paper)


def draw(found, path):
    with figure(path) as panel:
        for row in found:
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
    main()
