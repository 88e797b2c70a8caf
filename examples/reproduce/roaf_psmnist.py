"""Permuted sequential MNIST, a pixel a step: ROAF of several widths, LSTM and GRU.

    python examples/reproduce/roaf_psmnist.py --dataset mnist

Each row trains until its epochs, or the minutes that all have, are over. After each
epoch its model is in `--checkpoints`, from which a second call goes on; `--stop-after`
ends before the `--epochs` of the schedule. With `--validate` it is judged by a
twentieth of the training data, as the settings were chosen. Filter, readout, dropout
and learning rate are those of ROAF. The figure shows accuracies against time and width.
"""

from pathlib import Path

import _recurrent
import _training
import keras
import numpy as np
from _runner import Choice, Experiment, columns

from keras_bsnn import datasets, models
from keras_bsnn.plots import figure

NETWORKS = (_recurrent.ROAF, *_recurrent.BASELINES)


def run(args, network, units, seed, validated, curve=(), **_):
    """Goes on from where it was left, and yields after each epoch."""
    name = f"{network}_{units}_{seed}" + "_validated" * validated
    checkpoint = Path(args.checkpoints) / f"{name}.keras"
    size = (args.dataset, args.batch_size, validated, seed)
    data = _training.load(*size, pixels, share=95)

    def start():
        keras.utils.set_random_seed(seed)
        model = made(network, units, args)
        is_ours = network == _recurrent.ROAF
        rate = args.learning_rate if is_ours else args.baseline_rate
        schedule = _training.warm_up_and_decay(rate, args.epochs * len(data["fit"]))
        _training.compile_model(model, keras.optimizers.Adam(schedule, clipnorm=1.0))
        return model

    limits = (args.stop_after or args.epochs, 60 * args.minutes)
    for model, now in _training.by_epochs(start, data, checkpoint, curve, *limits):
        yield {"parameters": model.count_params(), "curve": now}


def pixels(dataset, split, batch_size, **kwargs):
    return datasets.permuted_mnist(split, batch_size, name=dataset, **kwargs)


def made(name, units, args):
    rows, columns, _ = datasets.IMAGE_SETS[args.dataset].shape
    shape, classes = (rows * columns, 1), datasets.IMAGE_SETS[args.dataset].classes
    if name != _recurrent.ROAF:
        return _recurrent.baseline(name, units, classes, shape)
    more = {"readout": tuple(args.readout), "filter": args.filter, "seed": args.seed}
    model = models.roaf_rnn(units, classes, args.alpha, input_shape=shape, **more)
    *memory, last = model.layers
    dropout = keras.layers.Dropout(args.dropout, seed=args.seed)
    return keras.Sequential([keras.Input(shape), *memory, dropout, last])


def ordered(records):
    """Those on test data, or if there are none all."""
    rows = [row for row in records if not row["validated"]] or records
    return sorted(rows, key=lambda r: (NETWORKS.index(r["network"]), r["units"]))


TABLE = {
    "": "{network}",
    "units": "{units}",
    "parameters": "{parameters:,}",
    "minutes": _training.minutes,
    "epochs": lambda row: str(len(row["curve"])),
    "first": lambda row: f"{percent(row)[0]:.2f} %",
    "last": lambda row: f"{percent(row)[-1]:.2f} %",
}


def draw(records, path):
    with figure(path, rows=2) as (above, below):
        for row in records:
            seconds = np.cumsum([point["seconds"] for point in row["curve"]])
            label = f"{row['network']}, {row['units']} units"
            above.plot(seconds / 60, percent(row), marker="o", label=label)
        ours = [row for row in records if row["network"] == "ROAF"]
        widths = [row["units"] for row in ours]
        for epoch, label in ((0, "after one epoch"), (-1, "after the last")):
            last = [percent(row)[epoch] for row in ours]
            below.plot(widths, last, marker="o", label=label)
        below.set_xscale("log", base=2)
        below.set_xticks(widths, [str(width) for width in widths])
        for panel in (above, below):
            panel.set(title="accuracy in %")
            panel.legend()
        above.set_xlabel("minutes of training")
        below.set_xlabel("units of ROAF")


def percent(row):
    return [100 * point["accuracy"] for point in row["curve"]]


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        rows={
            **{"network": "networks", "units": "units"},
            **{"seed": "seed", "validated": "validate"},
        },
        arrange=ordered,
        figure=draw,
        options={
            "dataset": Choice(datasets.IMAGE_SETS, "mnist"),
            "networks": Choice(NETWORKS, ["ROAF", "LSTM", "GRU"]),
            **{"units": [256], "alpha": 0.999, "filter": "shift"},
            **{"readout": [512], "dropout": 0.2, "batch_size": 100, "epochs": 10},
            **{"learning_rate": 3e-3, "baseline_rate": 1e-3, "stop_after": int},
            **{"minutes": 120.0, "validate": False, "seed": 0},
            "checkpoints": "runs/roaf_psmnist",
        },
        record="roaf_psmnist",
        is_done=_training.has_all_epochs,
    ).main()
