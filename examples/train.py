"""Trains a very deep network, saves it, exports it, and serves from what was exported.

    python examples/train.py --dataset digits --depth 200

In `--out` it leaves `model.keras`, `saved_model/`, `history.csv`, `signals.png` and
`result.json`. A run that was interrupted goes on with the same command and `--resume`.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_bsnn import datasets, diagnostics, export, manifolds, models, plots
from keras_bsnn._record import environment
from keras_bsnn.callbacks import BackupAndRestore, RecalibrateBatchNorm, Retract
from keras_bsnn.layers import DepthStack
from keras_bsnn.optimizers import StiefelMuon


class Network(NamedTuple):
    """A kind of deep network.

    Attributes:
        make: a function of `keras_bsnn.models`.
        activation: that it gets by default.
        options: names of further arguments of this script that it takes.
        optimizer: class of its optimizer.
        learning_rate: by default.
    """

    make: Callable
    activation: str
    options: tuple = ("eta",)
    optimizer: type = StiefelMuon
    learning_rate: float = 0.05  # at any depth and width


MODELS = {
    "bsnn": Network(models.bsnn_mlp, "gelu"),
    "batchnorm": Network(models.batchnorm_mlp, "tanh"),
    "roaf": Network(
        models.roaf_mlp, "relu", ("c", "filter"), keras.optimizers.Adam, 0.01
    ),
}
START = time.perf_counter()
SPLITS = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
LARGEST_EVALUATION_BATCH = 500


def main():
    parser = argument_parser()
    args = with_defaults(parser.parse_args())
    try:
        check_folder(args)
        keras.utils.set_random_seed(args.seed)
        data = load_splits(args)
        model = compiled(deep_network(args), optimizer(data, args), args)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    run(model, data, args)


def argument_parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model", choices=MODELS, default="bsnn")
    add("--dataset", default="digits", help=", ".join(datasets.IMAGE_SETS))
    add("--depth", type=int, default=200, help="number of hidden layers")
    add("--units", type=int, default=128, help="width of each layer")
    add("--activation", help="default: gelu, tanh, relu (bsnn, batchnorm, roaf)")
    add("--eta", type=float, default=0.15, help="correlation after all layers")
    add("--c", type=float, default=3.0, help="roaf: alpha is 1 - c / depth")
    add("--filter", default="haar", help="roaf: as of ROAFDense")
    add("--epochs", type=int, default=30)
    add("--batch-size", type=int, default=128)
    add("--learning-rate", type=float, help="default: 0.05, of roaf 0.01")
    add("--seed", type=int, default=0)
    add("--jit", action=argparse.BooleanOptionalAction, default=True, help="use XLA")
    add("--baseline", action=argparse.BooleanOptionalAction, default=True)
    add("--out", type=Path, help="folder of the results")
    add("--resume", action="store_true", help="go on from the last epoch in --out")
    return parser


def with_defaults(args):
    """Those that differ between kinds of networks."""
    for name in ("activation", "learning_rate"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(MODELS[args.model], name))
    return args


def check_folder(args):
    """Makes `--out`; refuses to mix two runs or to resume what is not there."""
    if args.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, not {args.epochs}")
    name = f"{args.model}-{args.dataset}-{args.depth}x{args.units}-seed{args.seed}"
    args.out = args.out or Path("runs") / name
    if args.resume:
        check_checkpoint(args)
        return
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        raise ValueError(f"--out: {args.out} cannot be written: {error}") from error
    if any(args.out.iterdir()):
        raise ValueError(
            f"--out: {args.out} is not empty: --resume it, remove it, or take another"
        )


def check_checkpoint(args):
    if not checkpoint(args).batches:
        raise ValueError(f"--resume: there is no checkpoint in {args.out}")
    saved = json.loads((args.out / "settings.json").read_text())
    if differing := {k: v for k, v in saved.items() if settings(args)[k] != v}:
        raise ValueError(f"--resume: the run in {args.out} had {differing}")


def checkpoint(args):
    return BackupAndRestore(args.out / "checkpoint", delete_checkpoint=False)


def settings(args):
    """The arguments that a resumed run must share."""
    free = ("out", "resume", "jit", "baseline")
    return {key: value for key, value in vars(args).items() if key not in free}


def run(model, data, args):
    (args.out / "settings.json").write_text(json.dumps(settings(args), indent=1))
    fit(model, data, args)
    networks = {"ours": model}
    if args.baseline:
        print("The same with a plain activation, Glorot weights, and Adam:")
        plain = plain_network(args)
        networks["plain"] = compiled(plain, keras.optimizers.Adam(), args)
        networks["plain"].fit(data["fit"], epochs=args.epochs, shuffle=False, verbose=2)
    result = measure(networks, data)
    result |= {"largest_difference": save_and_reload(model, data["test"], args.out)}
    draw(result, args.out / "signals.png")
    show(result, args)
    record = {
        **environment(),
        "settings": vars(args),
        "seconds": round(time.perf_counter() - START),
        "result": summary(result),
    }
    (args.out / "result.json").write_text(
        json.dumps(record, indent=1, default=str) + "\n"
    )


def measure(networks, data):
    batch = next(iter(data["fit"]))
    return {
        "accuracy": {
            label: {name: accuracy(network, data[name]) for name in SPLITS}
            for label, network in networks.items()
        },
        "norms": {
            label: diagnostics.signal_report(network, *batch, training=False).trained()
            for label, network in networks.items()
        },
        "orthogonality_error": orthogonality_error(networks["ours"]),
    }


def load_splits(args):
    """The shuffled training batches, and each split once and whole."""
    data = {"fit": datasets.load(args.dataset, SPLITS["train"], args.batch_size)}
    for name, split in SPLITS.items():
        images = len(datasets.load(args.dataset, split, 1, shuffle=False))
        batch = max(
            size
            for size in range(1, LARGEST_EVALUATION_BATCH + 1)
            if images % size == 0
        )
        data[name] = datasets.load(args.dataset, split, batch, shuffle=False)
    return data


def deep_network(args):
    image_set = datasets.IMAGE_SETS[args.dataset]
    network = MODELS[args.model]
    return network.make(
        args.depth,
        args.units,
        args.activation,
        image_set.classes,
        input_shape=image_set.shape,
        seed=args.seed,
        **{name: getattr(args, name) for name in network.options},
    )


def plain_network(args):
    activation = args.activation.removeprefix("gp_")
    image_set = datasets.IMAGE_SETS[args.dataset]
    return keras.Sequential(
        [
            keras.Input(image_set.shape),
            keras.layers.Flatten(),
            keras.layers.Dense(args.units, activation),
            DepthStack(keras.layers.Dense(args.units, activation), args.depth),
            keras.layers.Dense(image_set.classes),
        ]
    )


def optimizer(data, args):
    steps = args.epochs * len(data["fit"])
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=args.learning_rate,
        warmup_steps=max(1, steps // 20),
        decay_steps=steps - steps // 20,
    )
    return MODELS[args.model].optimizer(schedule)


def compiled(model, optimizer, args):
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=args.jit,
    )
    return model


class SayWhere(keras.callbacks.Callback):
    """Says after which epoch a resumed run goes on."""

    def on_train_begin(self, logs=None):
        self.is_first = True

    def on_epoch_begin(self, epoch, logs=None):
        if self.is_first and epoch > 0:
            print(f"Resumed: epochs 1 to {epoch} are done, going on with {epoch + 1}.")
        self.is_first = False


def fit(model, data, args):
    backup, steps = checkpoint(args), len(data["fit"])
    batches = datasets.load(
        args.dataset,
        SPLITS["train"],
        args.batch_size,
        seed=args.seed,
        start=backup.batches,  # in a run that was killed; else 0
    )
    history = args.out / "history.csv"
    if args.resume:
        keep_epochs(history, backup.batches // steps)
    model.fit(
        batches,
        validation_data=data["validation"],
        shuffle=False,  # the pipeline does
        steps_per_epoch=steps,
        epochs=args.epochs,
        callbacks=[
            keras.callbacks.CSVLogger(history, append=args.resume),
            keras.callbacks.TerminateOnNaN(),
            SayWhere(),
            Retract(),
            *([RecalibrateBatchNorm(data["train"])] * (args.model == "batchnorm")),
            backup,
        ],
    )


def keep_epochs(history, count):
    """Drops the row of an epoch that was logged, but is not in the checkpoint."""
    rows = history.read_text().splitlines(keepends=True)
    history.write_text("".join(rows[: 1 + count]))


def accuracy(model, data):
    return model.evaluate(data, verbose=0, return_dict=True)["accuracy"]


def orthogonality_error(model):
    """Of the constrained kernels; `None` if there are none."""
    kernels = manifolds.constrained(model.trainable_variables)
    errors = (manifold.error(kernel) for kernel, manifold in kernels)
    return max((float(keras.ops.max(error)) for error in errors), default=None)


def save_and_reload(model, test_data, out):
    """Saves both forms and compares their predictions with those in memory."""
    import tensorflow as tf

    # What is there already is of this very run, before it was interrupted.
    (out / "model.keras").unlink(missing_ok=True)
    shutil.rmtree(out / "saved_model", ignore_errors=True)
    model.save(out / "model.keras")
    export.saved_model(model, out / "saved_model")
    images = np.resize(next(iter(test_data))[0], (1000, *model.input_shape[1:]))
    expected = model.predict(images, batch_size=1000, verbose=0)
    reloaded = keras.models.load_model(out / "model.keras")
    served = tf.saved_model.load(out / "saved_model")
    # A batch of 1 has its own reference: its sums are rounded in another order.
    found = {
        "model.keras": (reloaded.predict(images, batch_size=1000, verbose=0), expected),
        "saved_model, batch of 1,000": (served.serve(images), expected),
        "saved_model, batch of 1": (
            served.serve(images[:1]),
            model.predict(images[:1], verbose=0),
        ),
    }
    return {name: float(np.abs(a - b).max()) for name, (a, b) in found.items()}


def spread(values):
    return {"min": values.min(), "median": np.median(values), "max": values.max()}


def summary(result):
    """The result as it goes into a file: norms by their spread."""
    norms = {
        label: {"forward": spread(n.root_mean_square), "gradient": spread(n.gradient)}
        for label, n in result["norms"].items()
    }
    return {**result, "norms": norms}


def draw(result, path):
    names = {"ours": "ours", "plain": "plain, Glorot"}
    curves = {
        f"{names[label]}: {result['accuracy'][label]['test']:.1%} on test data": norms
        for label, norms in result["norms"].items()
    }
    plots.signals(curves, path)


def show(result, args):
    table = Table(title=f"{args.dataset}, {args.depth} layers of {args.units} units")
    table.add_column("")
    for label in result["accuracy"]:
        table.add_column(label, justify="right")
    for split in SPLITS:
        accuracies = (a[split] for a in result["accuracy"].values())
        table.add_row(f"{split} accuracy", *(f"{a:.4f}" for a in accuracies))
    norms = summary(result)["norms"].values()
    for kind in ("forward", "gradient"):
        for which in ("min", "median", "max"):
            spreads = (n[kind] for n in norms)
            table.add_row(
                f"{kind} norm, {which}", *(f"{s[which]:.3g}" for s in spreads)
            )
    if result["orthogonality_error"] is not None:
        error = f"{result['orthogonality_error']:.1e}"
        table.add_row("largest orthogonality error", error)
    for name, difference in result["largest_difference"].items():
        table.add_row(f"{name}: largest difference", f"{difference:.1e}")
    Console().print(table)
    print(f"Results: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
