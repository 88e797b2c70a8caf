"""Fifty thousand layers on MNIST: with additive filters, with none, and plain.

    python examples/reproduce/roaf_mlp.py --dataset mnist

Rows: a random filter in each layer; the identity in its place, as in residual networks;
and a plain network of dense layers. Each row leaves a JSON with its curve, and after
each epoch its model in `--checkpoints`, from which a second call goes on. The figure
shows accuracies, and the gradient at the output of each layer.
"""

import json
from pathlib import Path

import _script
import _training
import keras
import numpy as np

from keras_bsnn import datasets, diagnostics, models
from keras_bsnn.layers import DepthStack
from keras_bsnn.plots import figure

POINTS = 500  # of the curve of gradients that is kept
FILTERS = ("haar", "shift", "rotations", "permutation", "identity")
PLAIN = "plain"


def main():
    args = arguments()
    _script.use_threads(args.threads)
    for row in [] if args.show else args.rows:
        complete(row, args)
    found = {
        row: json.loads(path(row, args).read_text())["result"]
        for row in (*FILTERS, PLAIN)
        if path(row, args).exists()
    }
    heads = ("", "layers", "units", "epochs", "minutes", "accuracy", "gradient")
    title = f"{args.dataset}, {'held-out' if args.validate else 'test'} data"
    _script.publish(args, "reproduce/roaf_mlp.py", title, heads, contents(found))
    draw(found, args.figure)


def arguments():
    parser = _script.parser(__doc__)
    parser.set_defaults(depth=50_000, width=32)
    add = parser.add_argument
    add("--rows", nargs="+", choices=(*FILTERS, PLAIN), default=["haar"])
    add("--activation", default="relu")
    add("--c", type=float, default=3.0, help="alpha is 1 - c / depth")
    add("--epochs", type=int, default=4, help="of the schedule of the learning rate")
    add("--stop-after", type=int, help="epochs, if fewer; a later call goes on")
    add("--batch-size", type=int, default=200)
    add("--learning-rate", type=float, default=0.01)
    add("--validate", action="store_true", help="hold out a tenth of the training data")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=_script.RESULTS / "roaf_mlp")
    add("--checkpoints", type=Path, default=Path("runs/roaf_mlp"))
    add("--figure", type=Path, default=Path("docs/roaf_mlp.png"))
    return parser.parse_args()


def path(row, args):
    return args.out / f"{row}_{args.depth}_{args.seed}.json"


def complete(row, args):
    """Trains a network from where it was left."""
    record = path(row, args)
    checkpoint = args.checkpoints / f"{record.stem}.keras"
    data = _training.load(args.dataset, args.batch_size, args.validate, args.seed)
    steps = args.epochs * len(data["fit"])

    def start():
        keras.utils.set_random_seed(args.seed)
        model = network(row, args)
        rate = _training.warm_up_and_decay(args.learning_rate, steps)
        _training.compile_model(model, keras.optimizers.Adam(rate))
        size = {"depth": args.depth, "units": args.width}
        size["parameters"] = model.count_params()
        return model, {"row": row, **size, "before": signal(model, args)}

    def write(record, result):
        _script.write(record, settings=_script.settings(args), result=result)

    _training.Row(record, checkpoint, start, write).train(
        data,
        args.stop_after or args.epochs,
        observe=lambda model: {"after": signal(model, args)},
    )


def network(row, args):
    image_set = datasets.IMAGE_SETS[args.dataset]
    model = models.roaf_mlp(
        args.depth,
        args.width,
        activation=args.activation,
        filter="identity" if row == PLAIN else row,
        classes=image_set.classes,
        c=args.c,
        input_shape=image_set.shape,
        seed=args.seed,
    )
    if row != PLAIN:
        return model
    plain = keras.layers.Dense(
        args.width, args.activation, kernel_initializer="he_normal"
    )
    layers = [
        DepthStack(plain, args.depth) if isinstance(layer, DepthStack) else layer
        for layer in model.layers
    ]
    return keras.Sequential([keras.Input(image_set.shape), *layers])


def signal(model, args):
    """Norms of the gradient at the outputs of the layers, and their bounds."""
    norms = _training.signal_norms(model, args.dataset, args.seed)
    gradient = norms.gradient[:-1]
    kept = np.unique(np.linspace(0, len(gradient) - 1, POINTS).round().astype(int))
    (stack,) = (layer for layer in model.layers if isinstance(layer, DepthStack))
    bounds = diagnostics.jacobian_bounds(stack) if hasattr(stack.block, "alpha") else ()
    return {
        "first_over_last": _script.significant(gradient[0] / gradient[-1]),
        "bounds": [_script.significant(bound) for bound in bounds],
        "gradient": [_script.significant(norm) for norm in gradient[kept]],
    }


def contents(found):
    for row, result in found.items():
        curve = result["curve"]
        yield (
            row,
            f"{result['depth']:,}",
            str(result["units"]),
            str(len(curve)),
            f"{sum(point['seconds'] for point in curve) / 60:.0f}",
            f"{100 * curve[-1]['accuracy']:.2f} %",
            f"{float(result['after']['first_over_last']):.2g}",
        )


def draw(found, path):
    with figure(path, rows=2) as (above, below):
        for row, result in found.items():
            accuracies = [100 * point["accuracy"] for point in result["curve"]]
            epochs = range(1, len(accuracies) + 1)
            above.plot(epochs, accuracies, marker="o", label=row)
            norms = np.array(result["after"]["gradient"], "float64")
            depths = np.linspace(0, result["depth"], len(norms))
            norms = np.where(norms > 0, norms, np.nan)  # underflowed: a gap
            below.plot(depths, norms, label=row)
        above.set(ylim=(0, 100), title="accuracy in % after each epoch")
        below.set(yscale="log", title="gradient at the output of each layer")
        above.legend()


if __name__ == "__main__":
    main()
