"""Permuted sequential MNIST, a pixel a step: ROAF of several widths, LSTM and GRU.

    python examples/reproduce/roaf_psmnist.py --dataset mnist

Each row trains until its epochs, or the minutes that all have, are over. It leaves a
JSON with its curve, and after each epoch its model in `--checkpoints`, from which a
second call goes on. With `--validate` it is judged by a twentieth of the training data,
as the settings were chosen. The figure shows accuracies against time and width.
"""

import json
from pathlib import Path

import _recurrent
import _script
import _training
import keras
import numpy as np

from keras_bsnn import datasets, models
from keras_bsnn.plots import figure

NETWORKS = (_recurrent.ROAF, *_recurrent.BASELINES)


def main():
    args = arguments()
    _script.use_threads(args.threads)
    rows = [(network, units) for network in args.networks for units in args.units]
    for row in [] if args.show else rows:
        complete(*row, args)
    files = sorted(args.out.glob("*.json"))
    found = [json.loads(file.read_text())["result"] for file in files]
    found = [row for row in found if row["validated"] == args.validate]
    found.sort(key=lambda row: (NETWORKS.index(row["network"]), row["units"]))
    heads = ("", "units", "parameters", "minutes", "epochs", "first", "last")
    title = f"{args.dataset}, {'held-out' if args.validate else 'test'} data"
    _script.publish(args, "reproduce/roaf_psmnist.py", title, heads, contents(found))
    draw(found, args.figure)


def arguments():
    parser = _script.parser(__doc__)
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=["ROAF", "LSTM", "GRU"])
    add("--units", nargs="+", type=int, default=[256])
    add("--alpha", type=float, default=0.999)
    add("--filter", default="shift", help="of ROAF")
    add("--readout", nargs="*", type=int, default=[512], help="hidden layers of ROAF")
    add("--dropout", type=float, default=0.2, help="before the outputs of ROAF")
    add("--learning-rate", type=float, default=3e-3, help="of ROAF")
    add("--baseline-rate", type=float, default=1e-3, help="of the others")
    add("--batch-size", type=int, default=100)
    add("--epochs", type=int, default=10, help="of the schedule of the learning rate")
    add("--stop-after", type=int, help="epochs, if fewer; a later call goes on")
    add("--minutes", type=float, default=120.0, help="of training, at most")
    add("--validate", action="store_true", help="hold out a part of the training data")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=_script.RESULTS / "roaf_psmnist")
    add("--checkpoints", type=Path, default=Path("runs/roaf_psmnist"))
    add("--figure", type=Path, default=Path("docs/roaf_psmnist.png"))
    return parser.parse_args()


def complete(name, units, args):
    stem = f"{name}_{units}_{args.seed}" + "_validation" * args.validate
    data = _training.load(
        args.dataset, args.batch_size, args.validate, args.seed, pixels, share=95
    )
    steps = args.epochs * len(data["fit"])

    def start():
        keras.utils.set_random_seed(args.seed)
        model = network(name, units, args)
        rate = args.learning_rate if name == "ROAF" else args.baseline_rate
        schedule = _training.warm_up_and_decay(rate, steps)
        optimizer = keras.optimizers.Adam(schedule, clipnorm=1.0)
        _training.compile_model(model, optimizer)
        return model, {
            "network": name,
            "units": units,
            "validated": args.validate,
            "parameters": model.count_params(),
        }

    def write(record, result):
        _script.write(record, settings=_script.settings(args), result=result)

    record, checkpoint = args.out / f"{stem}.json", args.checkpoints / f"{stem}.keras"
    row = _training.Row(record, checkpoint, start, write)
    row.train(data, args.stop_after or args.epochs, 60 * args.minutes)


def pixels(dataset, split, batch_size, **kwargs):
    return datasets.permuted_mnist(split, batch_size, name=dataset, **kwargs)


def network(name, units, args):
    image_set = datasets.IMAGE_SETS[args.dataset]
    shape = (image_set.shape[0] * image_set.shape[1], 1)
    if name != "ROAF":
        return _recurrent.baseline(name, units, image_set.classes, shape)
    model = models.roaf_rnn(
        units,
        image_set.classes,
        args.alpha,
        readout=tuple(args.readout),
        input_shape=shape,
        seed=args.seed,
        filter=args.filter,
    )
    *memory, last = model.layers
    dropout = keras.layers.Dropout(args.dropout, seed=args.seed)
    return keras.Sequential([keras.Input(shape), *memory, dropout, last])


def contents(found):
    for row in found:
        accuracies = percent(row)
        minutes = sum(point["seconds"] for point in row["curve"]) / 60
        yield (
            row["network"],
            str(row["units"]),
            f"{row['parameters']:,}",
            f"{minutes:.0f}",
            str(len(accuracies)),
            f"{accuracies[0]:.2f} %",
            f"{accuracies[-1]:.2f} %",
        )


def draw(found, path):
    with figure(path, rows=2) as (above, below):
        for row in found:
            seconds = np.cumsum([point["seconds"] for point in row["curve"]])
            label = f"{row['network']}, {row['units']} units"
            above.plot(seconds / 60, percent(row), marker="o", label=label)
        draw_widths(below, [row for row in found if row["network"] == "ROAF"])
        for panel in (above, below):
            panel.set(title="accuracy in %")
            panel.legend()
        above.set_xlabel("minutes of training")
        below.set_xlabel("units of ROAF")


def draw_widths(panel, found):
    for epoch, label in ((0, "after one epoch"), (-1, "after the last")):
        widths = [row["units"] for row in found]
        panel.plot(
            widths, [percent(row)[epoch] for row in found], marker="o", label=label
        )
    panel.set_xscale("log", base=2)
    panel.set_xticks(widths, [str(width) for width in widths])


def percent(row):
    return [100 * point["accuracy"] for point in row["curve"]]


if __name__ == "__main__":
    main()
