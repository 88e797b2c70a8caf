"""What all scripts share: their arguments, records and tables."""

import argparse
import json
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_bsnn import datasets
from keras_bsnn._record import environment, fill

RESULTS = Path(__file__).parents[1] / "results"


def parser(doc, of_images=True):
    """A parser with the arguments that all scripts take, or all on images."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    if of_images:
        parser.add_argument("--dataset", default="mnist", choices=datasets.IMAGE_SETS)
        parser.add_argument("--depth", type=int, default=200)
        parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--threads", type=int, help="of one operation; default: all")
    parser.add_argument(
        "--show", action="store_true", help="what is there, no training"
    )
    parser.add_argument("--readme", help="a file whose marked table to write anew")
    return parser


def use_threads(count):
    if count and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)


def settings(args):
    """The arguments that tell what was computed, not where it is written."""
    places = ("out", "figure", "readme", "show")
    return {key: value for key, value in vars(args).items() if key not in places}


def write(path, **record):
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**environment(), **record}
    path.write_text(json.dumps(record, indent=1, default=str) + "\n")


def significant(value):
    """Three digits; what is not finite as text, which JSON can hold."""
    return float(f"{value:.3g}") if np.isfinite(value) else str(value)


def publish(args, script, title, heads, rows):
    """Prints a table, and writes it into the file that `--readme` names."""
    rows = [*rows]
    show(title, heads, rows)
    if args.readme:
        fill(args.readme, script, markdown(heads, rows))


def show(title, heads, rows):
    """Prints a table whose first column is text."""
    table = Table(title=title)
    for k, head in enumerate(heads):
        table.add_column(head, justify="right" if k else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)


def markdown(heads, rows):
    lines = (heads, ["---", *["---:"] * (len(heads) - 1)], *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
