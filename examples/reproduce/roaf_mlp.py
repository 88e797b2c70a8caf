"""Fifty thousand layers on MNIST: with additive filters, with none, and plain.

    python examples/reproduce/roaf_mlp.py --dataset mnist

Rows: a random filter in each layer; the identity in its place, as in residual networks;
and a plain network of dense layers. After each epoch its model is in `--checkpoints`,
from which a second call goes on; `--stop-after` ends before the `--epochs` of the
schedule. The figure shows accuracies, and the gradient at the output of each layer.
"""

from pathlib import Path

import _training
import keras
import numpy as np
from _runner import Choice, Experiment, columns, significant

from keras_bsnn import diagnostics, models
from keras_bsnn.layers import DepthStack
from keras_bsnn.plots import figure

POINTS = 500  # of the curve of gradients that is kept
FILTERS = ("haar", "shift", "rotations", "permutation", "identity")
PLAIN = "plain"


def run(args, row, depth, seed, curve=(), before=None, **_):
    """Goes on from where it was left, and yields after each epoch."""
    data = _training.load(args.dataset, args.batch_size, args.validate, seed)
    checkpoint = Path(args.checkpoints) / f"{row}_{depth}_{seed}.keras"

    def start():
        nonlocal before
        keras.utils.set_random_seed(seed)
        model = network(row, depth, seed, args)
        steps = args.epochs * len(data["fit"])
        rate = _training.warm_up_and_decay(args.learning_rate, steps)
        _training.compile_model(model, keras.optimizers.Adam(rate))
        before = signal(model, args)
        return model

    epochs = args.stop_after or args.epochs
    for model, now in _training.by_epochs(start, data, checkpoint, curve, epochs):
        size = {"units": args.width, "parameters": model.count_params()}
        signals = {"before": before, "after": signal(model, args)}
        yield {**size, **signals, "curve": now}


def network(row, depth, seed, args):
    shape = _training.shape_of(args.dataset)
    model = models.roaf_mlp(
        *(depth, args.width),
        activation=args.activation,
        filter="identity" if row == PLAIN else row,
        c=args.c,
        seed=seed,
        **shape,
    )
    if row != PLAIN:
        return model
    plain = keras.layers.Dense(
        args.width, args.activation, kernel_initializer="he_normal"
    )
    stack, layers = _training.stack_of(model), [keras.Input(shape["input_shape"])]
    layers += [DepthStack(plain, depth) if x is stack else x for x in model.layers]
    return keras.Sequential(layers)


def signal(model, args):
    """Norms of the gradient at the outputs of the layers, and their bounds."""
    gradient = _training.signal_norms(model, args.dataset, args.seed).gradient[:-1]
    stack = _training.stack_of(model)
    bounds = diagnostics.jacobian_bounds(stack) if hasattr(stack.block, "alpha") else ()
    return {
        "first_over_last": significant(gradient[0] / gradient[-1]),
        "bounds": [significant(bound) for bound in bounds],
        "gradient": _training.thinned(gradient, POINTS)[0],
    }


def ordered(records):
    return sorted(records, key=lambda row: (*FILTERS, PLAIN).index(row["row"]))


TABLE = {
    "": "{row}",
    "layers": "{depth:,}",
    "units": "{units}",
    "epochs": lambda row: str(len(row["curve"])),
    "minutes": _training.minutes,
    "accuracy": lambda row: f"{100 * row['curve'][-1]['accuracy']:.2f} %",
    "gradient": lambda row: f"{float(row['after']['first_over_last']):.2g}",
}


def draw(records, path):
    with figure(path, rows=2) as (above, below):
        for row in records:
            accuracies = [100 * point["accuracy"] for point in row["curve"]]
            epochs = range(1, len(accuracies) + 1)
            above.plot(epochs, accuracies, marker="o", label=row["row"])
            norms = np.array(row["after"]["gradient"], "float64")
            depths = np.linspace(0, row["depth"], len(norms))
            norms = np.where(norms > 0, norms, np.nan)  # underflowed: a gap
            below.plot(depths, norms, label=row["row"])
        above.set(ylim=(0, 100), title="accuracy in % after each epoch")
        below.set(yscale="log", title="gradient at the output of each layer")
        above.set_xlabel("epoch")
        below.set_xlabel("layer")
        above.legend(loc="center right")


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        rows={"row": "rows", "depth": "depth", "seed": "seed"},
        arrange=ordered,
        figure=draw,
        options={
            **_training.images(depth=50_000, width=32),
            "rows": Choice((*FILTERS, PLAIN), ["haar"]),
            **{"activation": "relu", "c": 3.0},  # alpha is 1 - c / depth
            **{"epochs": 4, "stop_after": int, "batch_size": 200, "seed": 0},
            **{"learning_rate": 0.01, "validate": False},
            "checkpoints": "runs/roaf_mlp",
        },
        record="roaf_mlp",
        is_done=_training.has_all_epochs,
    ).main()
