"""Says of a saved model whether the signal gets through it, on a page for browsers.

    python -m keras_bsnn.report model.keras --data digits --out report.html

The page is one file and loads nothing from elsewhere. Of a model that is not in a file,
or has classes of your own, `diagnostics.signal_report(model, x, y).to_html(path)` makes
the same.
"""

import argparse
import functools
import inspect
import re
import sys
import tempfile
import textwrap
from pathlib import Path

import keras
import numpy as np

from keras_bsnn import datasets, diagnostics
from keras_bsnn.ops import _check


def main(argv=None):
    parser = argument_parser()
    args = parser.parse_args(argv)
    try:
        report = write(args)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {_line(error)}\n")
    except ImportError as error:
        hint = "pip install 'keras_bsnn[datasets,plots]' brings all that is needed"
        parser.exit(2, f"{parser.prog}: error: {_line(error)}: {hint}\n")
    print(report.verdict)
    print(f"Report: {args.out}")


def argument_parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_bsnn.report",
        description=__doc__.split("\n")[0],
        epilog=" ".join(__doc__.split("\n\n")[-1].split()),
    )
    add = parser.add_argument
    add("model", type=Path, help="file of a Keras model, as model.save writes it")
    names = ", ".join(datasets.IMAGE_SETS)
    add("--data", required=True, help=f"{names}, or an .npz file with arrays x and y")
    add("--split", help="of a data set that is named; default: train")
    add("--batch-size", type=int, default=128, help="number of samples, at random")
    add("--seed", type=int, default=0, help="of the choice of samples")
    add("--loss", help="name of the loss, for a model that is not compiled")
    add("--from-logits", action="store_true", help="of --loss: there is no softmax")
    add("--out", type=Path, default=Path("report.html"), help="page to write")
    add("--csv", type=Path, help="file for the table of all layers")
    return parser


def write(args):
    """Measures the model of the arguments and writes the page."""
    for path in filter(None, (args.out, args.csv)):
        _check_out(path)
    keras.utils.set_random_seed(args.seed)
    model = load_model(args)
    x, y = load_batch(args)
    report = measure(model, x, y, args)
    facts = {
        "Model": f"{model.name}, from {args.model.name}",
        "Data": f"{len(x):,} samples of {Path(args.data).name}{_of_split(args)}",
        "Loss function": _name(model.loss),
    }
    report.to_html(args.out, title=f"Signal report: {model.name}", facts=facts)
    if args.csv:
        report.to_csv(args.csv)
    return report


def load_model(args):
    """The model, compiled with the loss of the arguments if there is one."""
    _check_file(args.model)
    try:
        model = keras.models.load_model(args.model)
    except Exception as error:  # a file that is broken may raise anything
        raise ValueError(
            f"{args.model} cannot be loaded as a Keras model: {_check.cause(error)}"
        ) from error
    if args.loss:
        model.compile(loss=_loss(args))
    if not model.compiled:
        raise ValueError(
            f"the model in {args.model} is not compiled: name its loss with --loss, "
            "such as --loss sparse_categorical_crossentropy, and add --from-logits "
            "if it does not end with a softmax"
        )
    return model


def _loss(args):
    loss = keras.losses.get(args.loss)
    if not args.from_logits:
        return loss
    if "from_logits" not in inspect.signature(loss).parameters:
        raise ValueError(f"--from-logits: {args.loss} does not take it")
    return functools.wraps(loss)(functools.partial(loss, from_logits=True))


def load_batch(args):
    """Inputs and targets, chosen by the seed."""
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, not {args.batch_size}")
    if args.data.endswith(".npz"):
        return _from_file(args)
    if args.data not in datasets.IMAGE_SETS:
        names = ", ".join(datasets.IMAGE_SETS)
        raise ValueError(
            f"--data must be one of {names} or an .npz file, not {args.data}"
        )
    split = args.split or "train"
    data = datasets.load(args.data, split, args.batch_size, True, args.seed)
    return next(iter(data.as_numpy_iterator()))


def _from_file(args):
    if args.split:
        raise ValueError("--split: an .npz file has none")
    _check_file(args.data)
    try:
        with np.load(args.data) as file:
            x, y = (np.atleast_1d(file[name]) for name in "xy")
    except Exception as error:  # as of a model
        raise ValueError(
            f"{args.data} must be an .npz file with arrays x and y of numbers"
        ) from error
    if not 0 < len(x) == len(y):
        raise ValueError(f"{args.data} has {len(x)} samples in x and {len(y)} in y")
    chosen = np.random.default_rng(args.seed).permutation(len(x))[: args.batch_size]
    return x[chosen], y[chosen]


def measure(model, x, y, args):
    try:
        return diagnostics.signal_report(model, x, y)
    except Exception as error:  # of the loss, the backend, or a layer
        raise ValueError(
            f"{args.model} cannot be measured on {args.data}: {error}"
        ) from error


def _check_file(path):
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")


def _check_out(path):
    """Before the work: whether it can be written."""
    if path.is_dir():
        raise ValueError(f"{path} cannot be written: it is a folder")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error


def _of_split(args):
    return "" if args.data.endswith(".npz") else f", {args.split or 'train'}"


def _name(loss):
    return getattr(loss, "name", None) or getattr(loss, "__name__", str(loss))


def _line(error):
    """What an error says, in one line: Keras' have colours, and tell all arguments."""
    words = re.sub(r"\x1b\[\d*m", "", str(error))
    words = words.partition("Arguments received by")[0]
    return textwrap.shorten(words, 400, placeholder=" ...")


if __name__ == "__main__":
    sys.exit(main())
