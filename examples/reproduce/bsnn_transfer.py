"""Does one learning rate fit every depth and width? Loss against learning rate.

    python examples/reproduce/bsnn_transfer.py --dataset mnist

Every point is `--steps` steps from the same weights, with warm-up and cosine decay, and
then the loss on held-out data: SGD with momentum, Adam and `StiefelMuon` over
`--depths` at `--width`, and `StiefelMuon` also over `--widths` at `--depth`.
"""

import functools

import _training
import keras
import numpy as np
from _runner import Choice, Experiment, markdown, significant

from keras_bsnn import datasets, models
from keras_bsnn.optimizers import StiefelMuon
from keras_bsnn.plots import figure, legend_on_top

OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(1e-3),
    "StiefelMuon": lambda: StiefelMuon(0.1),
}
RATES = {
    "SGD": [float(f"{3e-6 * 10 ** (k / 2):.1e}") for k in range(10)],
    "Adam": [float(f"{1e-5 * 10 ** (k / 2):.1e}") for k in range(8)],
    "StiefelMuon": [0.0125 * 2**k for k in range(7)],
}
HELD_OUT = 2000


def rows(args):
    curves = [(name, d, args.width) for name in args.optimizers for d in args.depths]
    if "StiefelMuon" in args.optimizers:
        curves += [("StiefelMuon", args.depth, width) for width in args.widths]
    for name, depth, width in curves:
        for rate in RATES[name]:
            network = {"optimizer": name, "depth": depth, "width": width}
            yield {**network, "learning_rate": rate}


def run(args, optimizer, depth, width, learning_rate):
    model, start, held_out = compiled(
        *(optimizer, depth, width, args.activation, args.dataset, args.seed)
    )
    model.set_weights(start)
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    source = (args.dataset, "train[:90%]", args.batch_size)
    data = datasets.load(*source, seed=args.seed).repeat().take(args.steps)
    schedule = Schedule(_training.warm_up_and_decay(learning_rate, args.steps))
    model.fit(data, shuffle=False, verbose=0, callbacks=[schedule])
    loss = model.evaluate(*held_out, batch_size=500, verbose=0)[0]
    return {"loss": significant(loss)}


@functools.lru_cache(1)  # compiled once for all rates
def compiled(optimizer, depth, width, activation, dataset, seed):
    """A model, the weights that it starts from, and held-out data."""
    keras.utils.set_random_seed(seed)
    shape = _training.shape_of(dataset)
    model = models.bsnn_mlp(depth, width, activation, **shape)
    _training.compile_model(model, OPTIMIZERS[optimizer]())
    batches = datasets.load(dataset, "train[90%:]", HELD_OUT, shuffle=False)
    return model, model.get_weights(), [*map(np.asarray, next(iter(batches)))]


class Schedule(keras.callbacks.Callback):
    """Sets the learning rate before each step, without compiling anew for each rate."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = float(self.schedule(batch + 1))


def curves(records):
    """Dict from optimizer, depth and width to the rates, in order, and their losses."""
    found = {}
    keys = ("optimizer", "width", "depth", "learning_rate")
    for row in sorted(records, key=lambda row: [row[key] for key in keys]):
        key = (row["optimizer"], row["depth"], row["width"])
        rates, losses = found.setdefault(key, ([], []))
        rates.append(row["learning_rate"])
        losses.append(float(row["loss"]))
    return found


def table(records):
    lines = []
    for (optimizer, depth, width), (rates, losses) in curves(records).items():
        best = np.nanargmin(losses)
        numbers = (f"{rates[best]:.2g}", f"{losses[best]:.3f}")
        lines.append([optimizer, f"{depth:,}", f"{width:,}", *numbers])
    return markdown(("", "layers", "units", "best learning rate", "loss there"), lines)


def draw(records, path):
    """SGD, Adam and `StiefelMuon` over the depths, and the last over the widths."""
    found = curves(records)
    narrow = records[0]["settings"]["width"]
    steps = records[0]["settings"]["steps"]
    contents = (
        ("SGD with momentum", "SGD", lambda d, w: w == narrow, "{0:,} layers"),
        ("Adam", "Adam", lambda d, w: w == narrow, "{0:,} layers"),
        ("StiefelMuon", "StiefelMuon", lambda d, w: w == narrow, "{0:,} layers"),
        ("StiefelMuon", "StiefelMuon", lambda d, w: w != narrow, "{1:,} units"),
    )
    with figure(path, rows=4, size=(7, 12), sharey=True) as panels:
        for panel, (title, name, belongs, label) in zip(panels, contents, strict=True):
            for (optimizer, depth, width), curve in found.items():
                if optimizer == name and belongs(depth, width):
                    panel.plot(*curve, marker="o", label=label.format(depth, width))
            panel.set(xscale="log", ylim=(0, 2.5))
            panel.set_xticks(RATES[name][::2], [f"{x:.2g}" for x in RATES[name][::2]])
            panel.minorticks_off()
            panel.set_ylabel(f"loss after {steps} steps")
            if panel.lines:
                legend_on_top(panel, ncols=4, title=title, columnspacing=1)
        panels[-1].set_xlabel("learning rate")


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows,
        draw,
        options={
            **_training.images(width=32, depth=10),
            **{"depths": [10, 100, 1000, 10_000], "widths": [64, 256, 1024]},
            **{"activation": "relu", "steps": 60, "batch_size": 128, "seed": 0},
            "optimizers": Choice(OPTIMIZERS),
        },
    ).main()
