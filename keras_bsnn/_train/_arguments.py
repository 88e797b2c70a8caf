"""The arguments of the command, and the folder that they name."""

import json
import tempfile
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import Any

import keras

from keras_bsnn import datasets
from keras_bsnn._train._networks import DEFAULTS, MODELS
from keras_bsnn.callbacks import BackupAndRestore


def add_arguments(parser: ArgumentParser) -> None:
    """Gives a parser the arguments of the command, and the text of its help."""
    parser.description = (
        "Trains a very deep network, saves it, exports it, and serves from what was "
        "exported."
    )
    parser.epilog = (
        "A run that was interrupted goes on with the same command and --resume."
    )
    _add_network(parser.add_argument_group("the network"))
    _add_training(parser.add_argument_group("its training"))
    _add_results(parser.add_argument_group("what is left behind"))


def _add_network(group: Any) -> None:
    add = group.add_argument
    add(
        "--model",
        choices=MODELS,
        default="bsnn",
        help="how the signal keeps its size: bsnn (orthogonal kernels and a normalized "
        "activation), batchnorm (batch normalization behind orthogonal kernels) or "
        "roaf (a fixed orthogonal matrix beside each layer); and the same of "
        "convolutions, bsnn_cnn, batchnorm_cnn, roaf_cnn; default: bsnn",
    )
    add("--depth", type=int, default=200, help="number of hidden layers; default: 200")
    add(
        "--units",
        type=int,
        help="width of each layer, of a CNN its filters; default: 128, of a CNN 16",
    )
    add(
        "--activation",
        help="its name in Keras, such as tanh or relu; default: gelu, tanh or relu (of "
        "bsnn, batchnorm, roaf), relu, tanh or tanh (of the CNNs)",
    )
    add(
        "--eta",
        type=float,
        default=0.15,
        help="bsnn: how nonlinear the network is as a whole, from 0 to 1: smaller is "
        "nearer to a linear one, larger makes samples more alike and lets norms drift "
        "apart; default: 0.15",
    )
    add(
        "--c",
        type=float,
        help="roaf: signals and gradients shrink by about exp(-c): larger gives what "
        "is trained more weight, smaller is nearer to a linear network; default: 3, of "
        "roaf_cnn 1",
    )
    add(
        "--filter",
        help="roaf: the fixed matrix, as of ROAFDense; default: haar, of roaf_cnn "
        "permutation",
    )


def _add_training(group: Any) -> None:
    add = group.add_argument
    names = ", ".join(datasets.IMAGE_SETS)
    add(
        "--dataset",
        default="digits",
        help=f"{names}; default: digits, which needs no download",
    )
    add(
        "--epochs",
        type=int,
        default=30,
        help="passes over the training data; the learning rate falls to 0 over all of "
        "them; default: 30",
    )
    add(
        "--augment",
        action=BooleanOptionalAction,
        default=False,
        help="shift training images at random, and mirror those of CIFAR and "
        "Fashion-MNIST; default: --no-augment",
    )
    add("--batch-size", type=int, default=128, help="images in a step; default: 128")
    add(
        "--learning-rate",
        type=float,
        help="largest one, after the warm-up; default: 0.05 at any depth and width, "
        "0.1 of bsnn_cnn, 0.01 of roaf and roaf_cnn",
    )
    add("--seed", type=int, default=0, help="of weights and batches; default: 0")
    add(
        "--jit",
        action=BooleanOptionalAction,
        default=keras.backend.backend() != "torch",  # which would compile for minutes
        help="compile with XLA: faster steps, after some seconds; default: --jit, on "
        "PyTorch --no-jit",
    )
    add(
        "--baseline",
        action=BooleanOptionalAction,
        default=True,
        help="train a plain network of the same size, too; default: --baseline",
    )


def _add_results(group: Any) -> None:
    add = group.add_argument
    add("--out", type=Path, help="empty or new folder; default: one in runs/")
    add("--resume", action="store_true", help="go on from the last epoch in --out")


def with_defaults(args: Namespace) -> Namespace:
    """The arguments, with those that differ between kinds of networks."""
    for name in DEFAULTS:
        if getattr(args, name) is None:
            setattr(args, name, getattr(MODELS[args.model], name))
    return args


def check_folder(args: Namespace) -> None:
    """Makes `--out`; refuses to mix two runs or to resume what is not there."""
    if args.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, not {args.epochs}")
    name = f"{args.model}-{args.dataset}-{args.depth}x{args.units}-seed{args.seed}"
    args.out = args.out or Path("runs") / name
    if args.resume:
        _check_checkpoint(args)
        return
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        raise ValueError(f"--out: {args.out} cannot be written: {error}") from error
    if any(args.out.iterdir()):
        raise ValueError(
            f"--out: {args.out} is not empty: remove it, take another, or go on with "
            "what `keras-bsnn train --resume` finds in it"
        )


def _check_checkpoint(args: Namespace) -> None:
    if not checkpoint(args).batches:
        raise ValueError(f"--resume: there is no checkpoint in {args.out}")
    saved = json.loads((args.out / "settings.json").read_text())
    if differing := {k: v for k, v in saved.items() if settings(args)[k] != v}:
        raise ValueError(f"--resume: the run in {args.out} had {differing}")


def checkpoint(args: Namespace) -> BackupAndRestore:
    """What a run goes on from."""
    return BackupAndRestore(args.out / "checkpoint", delete_checkpoint=False)


def settings(args: Namespace) -> dict[str, Any]:
    """The arguments that a resumed run must share."""
    free = ("out", "resume", "jit", "baseline")
    return {key: value for key, value in vars(args).items() if key not in free}
