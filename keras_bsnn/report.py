"""Reports whether the signal gets through a saved model, on a page for browsers.

    keras-bsnn report model.keras --data digits --out report.html

`python -m keras_bsnn.report` is the same command.

The page is one file and loads nothing from elsewhere. For a model that is not in a
file, or that has classes of your own,
`diagnostics.signal_report(model, x, y).to_html(path)` writes the same page.
"""

import functools
import inspect
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bsnn import _errors, datasets, diagnostics
from keras_bsnn._types import Array, Loss
from keras_bsnn.ops import _check


def main(argv: Sequence[str] | None = None) -> None:
    """Runs `python -m keras_bsnn.report`, by default with the process's arguments."""
    parser = argument_parser()
    run(parser.parse_args(argv), parser)


def argument_parser() -> ArgumentParser:
    """The parser of `python -m keras_bsnn.report`."""
    parser = ArgumentParser(prog="python -m keras_bsnn.report")
    add_arguments(parser)
    return parser


def add_arguments(parser: ArgumentParser) -> None:
    """Gives a parser the arguments of the command, and the text of its help."""
    parser.description = __doc__.split("\n")[0]
    parser.epilog = " ".join(__doc__.split("\n\n")[-1].split())
    add = parser.add_argument
    add("model", type=Path, help="file of a Keras model, as model.save writes it")
    names = ", ".join(datasets.IMAGE_SETS)
    add("--data", required=True, help=f"{names}, or an .npz file with arrays x and y")
    add("--split", help="part of a named data set, such as test; default: train")
    add("--batch-size", type=int, default=128, help="number of random samples")
    add("--seed", type=int, default=0, help="seed of the choice of samples")
    add("--loss", help="name of the loss, if the model is not compiled")
    no_softmax = "for --loss: the model does not end with a softmax"
    add("--from-logits", action="store_true", help=no_softmax)
    add("--out", type=Path, default=Path("report.html"), help="page to write")
    add("--csv", type=Path, help="file to write the table of all layers to")


def run(args: Namespace, parser: ArgumentParser) -> None:
    """Runs the command, whose errors the parser prints."""
    with _errors.in_one_line(parser):
        report = write(args)
    print(report.verdict)
    print(f"Report: {args.out}")


def write(args: Namespace) -> Any:
    """Measures the model, writes the page and returns the report."""
    for path in filter(None, (args.out, args.csv)):
        _check_out(path)
    keras.utils.set_random_seed(args.seed)
    model = load_model(args)
    loss = _loss(args) if args.loss else None
    x, y = load_batch(args)
    report = measure(model, x, y, loss, args)
    facts = {
        "Model": f"{model.name}, from {args.model.name}",
        "Data": f"{len(x):,} samples of {Path(args.data).name}{_of_split(args)}",
        "Loss function": _name(loss or model.loss),
    }
    report.to_html(args.out, title=f"Signal report: {model.name}", facts=facts)
    if args.csv:
        report.to_csv(args.csv)
    return report


def load_model(args: Namespace) -> keras.Model:
    """The model, which is compiled, unless the arguments name a loss."""
    _check_file(args.model)
    try:
        model = keras.models.load_model(args.model)
    except Exception as error:  # nobody knows what a damaged file may raise
        raise ValueError(
            f"{args.model} cannot be loaded as a Keras model: {_check.cause(error)}"
        ) from error
    if not args.loss and not model.compiled:
        raise ValueError(
            f"the model in {args.model} is not compiled: name its loss with --loss, "
            "such as --loss sparse_categorical_crossentropy, and add --from-logits "
            "if it does not end with a softmax"
        )
    return model


def _loss(args: Namespace) -> Any:
    loss = keras.losses.get(args.loss)
    if not args.from_logits:
        return loss
    if "from_logits" not in inspect.signature(loss).parameters:
        raise ValueError(f"--from-logits: {args.loss} does not take it")
    return functools.wraps(loss)(functools.partial(loss, from_logits=True))


def load_batch(args: Namespace) -> tuple[Array, Array]:
    """Inputs and targets of the samples, which the seed chooses."""
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
    x, y = next(iter(data))
    return np.asarray(x), np.asarray(y)


def _from_file(args: Namespace) -> tuple[Array, Array]:
    if args.split:
        raise ValueError("--split: an .npz file has no splits")
    _check_file(args.data)
    try:
        with np.load(args.data) as file:
            x, y = (np.atleast_1d(file[name]) for name in "xy")
    except Exception as error:  # as for a model
        raise ValueError(
            f"{args.data} must be an .npz file with arrays x and y of numbers"
        ) from error
    if not 0 < len(x) == len(y):
        raise ValueError(f"{args.data} has {len(x)} samples in x and {len(y)} in y")
    chosen = np.random.default_rng(args.seed).permutation(len(x))[: args.batch_size]
    return x[chosen], y[chosen]


def measure(model: keras.Model, x: Array, y: Array, loss: Loss, args: Namespace) -> Any:
    """The report on a model."""
    try:
        return diagnostics.signal_report(model, x, y, loss=loss)
    except Exception as error:  # from the loss, the backend, or a layer
        raise ValueError(
            f"{args.model} cannot be measured on {args.data}: {error}"
        ) from error


def _check_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")


def _check_out(path: Path) -> None:
    """Checks, before the work, that the file can be written."""
    if path.is_dir():
        raise ValueError(f"{path} cannot be written: it is a folder")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error


def _of_split(args: Namespace) -> str:
    return "" if args.data.endswith(".npz") else f", {args.split or 'train'}"


def _name(loss: Any) -> str:
    return getattr(loss, "name", None) or getattr(loss, "__name__", None) or str(loss)


if __name__ == "__main__":
    main()
