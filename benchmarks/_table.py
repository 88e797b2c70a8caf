"""A benchmark whose records, of now or of earlier, become a table of the README."""

import json
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX"}


def add_arguments(parser):
    add = parser.add_argument
    add("--out", type=Path, help="a file for the record")
    add("--from", dest="records", nargs="+", type=Path, help="files, not a measurement")
    add("--readme", help="a file to write the table into, between its markers")


def present(name, measure, table, args):
    """Prints the table, and writes it where it is wanted.

    Args:
        name: of the script, and of the markers in the file.
        measure: as that of `records_of`.
        table: function of a list of records that returns Markdown.
        args: those of `add_arguments`, and others.
    """
    text = table(records_of(measure, args))
    Console(width=150).print(Markdown(text))
    fill(name, text, args)


def records_of(measure, args):
    """Those of `--from`, or that of `measure(args)`, which returns a part of it."""
    if args.records:
        return [json.loads(path.read_text()) for path in args.records]
    return [write(args.out, measure(args))]


def fill(name, text, args):
    if args.readme:
        from keras_bsnn import _record  # not at the top: it imports a framework

        _record.fill(args.readme, name, text)


def write(path, found):
    """The record, also as a file unless `path` is None."""
    from keras_bsnn._record import environment

    record = {**environment(), **found}
    if path:
        path.write_text(json.dumps(record, indent=1, default=str) + "\n")
    return record


def kept(args):
    """What is in `--out` already, with `--go-on`."""
    return json.loads(args.out.read_text())["result"] if args.go_on else []


def rows_of(records):
    return [row for record in records for row in record["result"]]


def markdown(heads, rows, left=1):
    """A table with as many columns of text, and else of numbers."""
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, marks, *rows))
