"""Errors of the commands."""

import contextlib
import re
import textwrap
from argparse import ArgumentParser
from collections.abc import Iterator


@contextlib.contextmanager
def in_one_line(parser: ArgumentParser) -> Iterator[None]:
    """A context for what the arguments decide: its errors end the command in a line.

    Raises:
        SystemExit: Instead of an error of a value, a file or a missing package.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: error: {_line(error)}\n")


def _line(error: Exception) -> str:
    """The message in one line, without the colors and arguments that Keras adds."""
    words = re.sub(r"\x1b\[\d*m", "", str(error))
    words = words.partition("Arguments received by")[0]
    return textwrap.shorten(words, 400, placeholder=" ...")
