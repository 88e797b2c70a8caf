"""The command `keras-bsnn demo`: 200 layers on the digits, without a download."""

import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from keras_bsnn import _train

LEFT = {  # what the command leaves, and what it is for
    "signals.png": "signal and gradient against depth, ours and a plain network's",
    "model.keras": "for keras.models.load_model, after import keras_bsnn",
    "saved_model": "for tf.saved_model.load, without Keras and without this package",
    "result.json": "accuracies, norms, settings, versions",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Gives a parser the arguments of the command, and the text of its help."""
    parser.description = (
        "Trains 200 layers on scikit-learn's digits, saves and exports them, and "
        "serves from the export; beside it, a plain network of the same size. It "
        "takes a minute or two on 2 cores, and no download."
    )
    add = parser.add_argument
    add("--depth", type=int, default=200, help="number of hidden layers; default: 200")
    add("--epochs", type=int, default=30, help="passes over the data; default: 30")
    out = Path("runs", "demo")
    add("--out", type=Path, default=out, help=f"empty or new folder; default: {out}")


def run(args: Namespace, parser: ArgumentParser) -> None:
    """Runs `keras-bsnn train` with these arguments, and says what is there now."""
    given = ["--model", "bsnn", "--dataset", "digits", "--depth", str(args.depth)]
    given += ["--epochs", str(args.epochs), "--out", str(args.out)]
    print(f"The same as: keras-bsnn train {shlex.join(given)}", flush=True)
    training = ArgumentParser(prog=parser.prog)
    _train.add_arguments(training)
    _train.run(training.parse_args(given), training)
    for name, words in LEFT.items():
        if (args.out / name).exists():
            print(f"  {args.out / name}: {words}")
    model = shlex.quote(str(args.out / "model.keras"))
    print(f"A report on its signal: keras-bsnn report {model} --data digits")
