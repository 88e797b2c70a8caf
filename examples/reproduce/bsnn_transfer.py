"""Does one learning rate fit every depth and width? Loss against learning rate.

    python examples/reproduce/bsnn_transfer.py --dataset mnist

Every point is `--steps` steps from the same weights, with warm-up and cosine decay, and
then the loss on held-out data: SGD with momentum over depth, `StiefelMuon` over depth
and over width. It leaves a JSON, which a second call completes, and the figure.
"""

import json
from pathlib import Path

import _script
import _training
import keras
import numpy as np

from keras_bsnn import datasets, models
from keras_bsnn.optimizers import StiefelMuon
from keras_bsnn.plots import figure

OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
    "StiefelMuon": lambda: StiefelMuon(0.1),
}
RATES = {
    "SGD": [float(f"{3e-6 * 10 ** (k / 2):.1e}") for k in range(10)],
    "StiefelMuon": [0.0125 * 2**k for k in range(7)],
}
HELD_OUT = 2000


def main():
    args = arguments()
    _script.use_threads(args.threads)
    found = json.loads(args.out.read_text())["result"] if args.out.exists() else []
    for panel in [] if args.show else panels(args):
        complete(found, *panel, args)
    heads = ("", "layers", "units", "best learning rate", "loss there")
    title = f"{args.dataset}, {args.activation}, after {args.steps} steps"
    _script.publish(
        args, "reproduce/bsnn_transfer.py", title, heads, contents(found, args)
    )
    draw(found, args)


def arguments():
    parser = _script.parser(__doc__)
    parser.set_defaults(width=32, depth=10)
    add = parser.add_argument
    add("--depths", nargs="+", type=int, default=[10, 100, 1000, 10000])
    add("--widths", nargs="+", type=int, default=[64, 256, 1024])
    add("--activation", default="relu")
    add("--steps", type=int, default=60)
    add("--batch-size", type=int, default=128)
    add("--optimizers", nargs="+", choices=OPTIMIZERS, default=[*OPTIMIZERS])
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=_script.RESULTS / "bsnn_transfer.json")
    add("--figure", type=Path, default="docs/bsnn_transfer.png")
    return parser.parse_args()


def panels(args):
    """Optimizer, depth and width of each curve: `--width` over the depths, then
    `--depth` over the widths."""
    for name in args.optimizers:
        yield from ((name, depth, args.width) for depth in args.depths)
    if "StiefelMuon" in args.optimizers:
        yield from (("StiefelMuon", args.depth, width) for width in args.widths)


def complete(found, name, depth, width, args):
    """Adds the points of one curve that are not in `found`, and writes them."""
    key = {"optimizer": name, "depth": depth, "width": width}
    there = {p["learning_rate"] for p in found if key.items() <= p.items()}
    missing = [rate for rate in RATES[name] if rate not in there]
    if not missing:
        return
    keras.utils.set_random_seed(args.seed)
    image_set = datasets.IMAGE_SETS[args.dataset]
    model = models.bsnn_mlp(
        depth, width, args.activation, image_set.classes, input_shape=image_set.shape
    )
    _training.compile_model(model, OPTIMIZERS[name]())
    held_out = batch_of(args.dataset, "train[90%:]", HELD_OUT, None)
    start = model.get_weights()
    for rate in missing:
        restart(model, start)
        data = datasets.load(
            args.dataset, "train[:90%]", args.batch_size, seed=args.seed
        )
        schedule = Schedule(_training.warm_up_and_decay(rate, args.steps))
        model.fit(
            data.repeat().take(args.steps),
            shuffle=False,
            verbose=0,
            callbacks=[schedule],
        )
        loss = model.evaluate(*held_out, batch_size=500, verbose=0)[0]
        found.append({**key, "learning_rate": rate, "loss": _script.significant(loss)})
        print(found[-1], flush=True)
        _script.write(args.out, settings=_script.settings(args), result=found)


def batch_of(dataset, split, size, seed):
    data = datasets.load(dataset, split, size, shuffle=False, seed=seed)
    images, labels = next(iter(data))
    return np.asarray(images), np.asarray(labels)


def restart(model, weights):
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))


class Schedule(keras.callbacks.Callback):
    """Sets the learning rate before each step, without compiling anew for each rate."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = float(self.schedule(batch + 1))


def curve(found, name, depth, width):
    key = {"optimizer": name, "depth": depth, "width": width}
    points = [p for p in found if key.items() <= p.items()]
    points.sort(key=lambda p: p["learning_rate"])
    rates = np.array([p["learning_rate"] for p in points])
    return rates, np.array([float(p["loss"]) for p in points])


def contents(found, args):
    for name, depth, width in panels(args):
        rates, losses = curve(found, name, depth, width)
        if len(rates):
            best = np.nanargmin(losses)
            numbers = (f"{rates[best]:.2g}", f"{losses[best]:.3f}")
            yield name, f"{depth:,}", f"{width:,}", *numbers


def draw(found, args):
    by_depth = [(depth, args.width) for depth in args.depths]
    by_width = [(args.depth, width) for width in args.widths]
    contents = (
        ("SGD with momentum", "SGD", by_depth, "{0:,} layers"),
        ("StiefelMuon", "StiefelMuon", by_depth, "{0:,} layers"),
        ("StiefelMuon", "StiefelMuon", by_width, "{1:,} units"),
    )
    with figure(args.figure, rows=3, size=(7, 9), sharey=True) as panels:
        for panel, (title, name, networks, label) in zip(panels, contents, strict=True):
            for network in networks:
                rates, losses = curve(found, name, *network)
                panel.plot(rates, losses, marker="o", label=label.format(*network))
            panel.set(xscale="log", ylim=(0, 2.5), title=title)
            panel.set_xticks(RATES[name], [f"{rate:.2g}" for rate in RATES[name]])
            panel.minorticks_off()
            panel.set_ylabel(f"loss after {args.steps} steps")
            panel.legend()
        panels[-1].set_xlabel("learning rate")


if __name__ == "__main__":
    main()
