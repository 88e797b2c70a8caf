"""The command `keras-bsnn`, beside the package, whose import is that of Keras.

So its help and its version come at once, and a backend that is missing is told of in
one line. A command is a module with `add_arguments(parser)` and `run(args, parser)`,
which is imported when it is called.
"""

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "report": ("keras_bsnn.report", "say whether the signal gets through a model"),
    "train": ("keras_bsnn._train", "train a very deep network on images"),
    "demo": ("keras_bsnn._demo", "train 200 layers on digits, without a download"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these arguments, by default those of the process."""
    argv = sys.argv[1:] if argv is None else [*argv]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow says less
    parser = argparse.ArgumentParser(
        prog="keras-bsnn",
        description="Keras layers for networks of any depth.",
        epilog="`keras-bsnn COMMAND --help` says what a command takes.",
    )
    words = "say which version is installed, and exit"
    parser.add_argument("--version", action=_Version, nargs=0, help=words)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (module, words) in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        if argv[:1] == [name]:
            called, chosen = _imported(module, command), command
    args = parser.parse_args(argv)
    called.run(args, chosen)


class _Version(argparse.Action):
    """Looks the version up once it is asked for: a checkout need not be installed."""

    def __call__(self, parser, *_):
        version = importlib.metadata.version("keras_bsnn")
        parser.exit(message=f"keras_bsnn {version}\n")


def _imported(module, parser):
    """A module, whose arguments the parser gets."""
    try:
        found = importlib.import_module(module)
    except ImportError as error:  # such as of a backend, or of an old Keras
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    found.add_arguments(parser)
    return found
