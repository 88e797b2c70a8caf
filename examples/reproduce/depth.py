"""One setting at depth 10 to 10,000: accuracy, and the norms of every layer.

    python examples/reproduce/depth.py --dataset mnist

Width, learning rate, batches, epochs and schedule are the same at each depth. It leaves
a JSON per depth in `--out`, passes over those that are there, and draws the norms after
training.
"""

import json
import types
from pathlib import Path

import _bsnn
import _script
import numpy as np

from keras_bsnn import plots

POINTS = 100  # of a curve that is drawn
HEADS = (
    *("layers", "train accuracy in %", "test accuracy in %", "minutes"),
    *("forward norms, max/min", "gradient norms, max/min"),
)


def main():
    args = arguments()
    _script.use_threads(args.threads)
    paths = {depth: args.out / file_name(args, depth) for depth in args.depths}
    for depth, path in paths.items():
        if not path.exists() and not args.show:
            train(args, depth, path)
    found = {
        d: json.loads(p.read_text())["result"] for d, p in paths.items() if p.exists()
    }
    title = f"{args.dataset}, {args.activation}, {args.width} units"
    _script.publish(args, "reproduce/depth.py", title, HEADS, contents(found))
    curves = {label(d, row): norms(row) for d, row in found.items()}
    plots.signals(curves, args.figure, xlabel="% of the depth")


def arguments():
    parser = _script.parser(__doc__)
    parser.set_defaults(width=64)
    add = parser.add_argument
    add("--depths", nargs="+", type=int, default=[10, 100, 1000, 10000])
    add("--activation", choices=_bsnn.FUNCTIONS, default="relu")
    add("--epochs", type=int, default=4)
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=_script.RESULTS / "bsnn_depth")
    add("--figure", type=Path, default="docs/bsnn_depth.png")
    return parser.parse_args()


def file_name(args, depth):
    network = f"{depth}x{args.width}-{args.epochs}epochs-seed{args.seed}"
    return f"{args.dataset}-{args.activation}-{network}.json"


def train(args, depth, path):
    recipe = _bsnn.RECIPES["best"]
    size = (depth, args.width, args.dataset, args.epochs, args.seed)
    norms, found = _bsnn.train(recipe, f"gp_{args.activation}", *size)
    row = {**recipe._asdict(), **found, "norms": thinned(norms)}
    settings = {**_script.settings(args), "depth": depth}
    _script.write(path, settings=settings, result=row)
    print(path.name, row["train"], row["held_out"], flush=True)


def thinned(measured):
    """Positions in the network from 0 to 1, and the norms there, without the logits."""
    curves = np.stack([measured.root_mean_square[:-1], measured.gradient[:-1]])
    last = curves.shape[1] - 1
    points = np.unique(np.linspace(0, last, POINTS).round().astype(int))
    forward, gradient = curves[:, points].tolist()
    return {
        "layer": points.tolist(),
        "forward": [_script.significant(norm) for norm in forward],
        "gradient": [_script.significant(norm) for norm in gradient],
    }


def norms(row):
    """As `plots.signals` takes them, at 0 to 100 % of the depth."""
    layers = row["norms"]["layer"]
    share = np.linspace(0, layers[-1], POINTS)
    forward, gradient = (
        np.interp(share, layers, row["norms"][k]) for k in ("forward", "gradient")
    )
    return types.SimpleNamespace(root_mean_square=forward, gradient=gradient)


def label(depth, row):
    return f"{depth:,} layers: {row['held_out']:.1%} on test data"


def contents(found):
    for depth, row in found.items():
        spreads = row["largest_over_smallest_norm"].values()
        accuracies = (f"{100 * row[which]:.2f}" for which in ("train", "held_out"))
        minutes = f"{row['seconds'] / 60:.1f}"
        yield f"{depth:,}", *accuracies, minutes, *(f"{s:.2f}" for s in spreads)


if __name__ == "__main__":
    main()
