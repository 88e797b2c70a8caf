"""One experiment: rows are measured and recorded, and become a table and a figure.

A script of `benchmarks/` or `examples/reproduce/` says what is particular to it:

    Experiment(
        __file__,
        options={"depths": [10, 100], "seeds": [0, 1, 2], "rate": 0.1},
        rows={"depth": "depths", "seed": "seeds"},
        run=lambda args, depth, seed: {"loss": train(depth, seed, args.rate)},
        table=columns({"layers": "{depth:,}", "loss": "{loss:.3f}"}),
    ).main()

Each row that has been measured is in a JSON with the command, the versions, the machine
and the settings; a second call measures the rows that are not there. The table, which
`--page` writes between its markers with the machines, versions and seeds below it, and
the figure are drawn from the records alone: with `--show`, or `--from` and the files,
nothing is measured.
"""

import argparse
import inspect
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from _origin import files, origin
from rich.console import Console
from rich.markdown import Markdown

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def tensorflow_first(records):
    """The records by their backends."""
    return sorted(records, key=lambda row: [*BACKENDS].index(row["backend"]))


class Choice(NamedTuple):
    """An option with given values; the default is one, or a list, or `None` for all."""

    values: Iterable
    default: object = None


@dataclass
class Experiment:
    """What a script measures, and what it makes of it.

    Attributes:
        script: its `__file__`. A script of `examples/reproduce/` is named with its
            folder in the markers of a Markdown file.
        run: function of the arguments and of the entries of a row, as keywords, which
            also has what was recorded of a row that is not done. It returns a dict, or
            a list of dicts for several records; or it yields one state after the other,
            of which the last is kept, so that what is broken off is not lost.
        table: function of a list of records, a dict each, that returns Markdown.
        rows: entries of a row, which identify its records, with the name of the option
            that has their value or values: all combinations are rows, the last entry
            changing fastest. Or a function of the arguments; the rows, dicts.
        figure: function of the records and a path that draws them, or `None`.
        arrange: function of a list of records; those to show, in their order.
        options: the script's own arguments: names with their default, which tells the
            type, or with the type alone. A list takes several values.
        record: name of the JSON in the folder of results, where `{backend}` stands for
            the backend; or of a folder with a JSON for each row.
        is_done: function of the arguments and a record; whether it is complete.
    """

    script: str
    run: Callable
    table: Callable
    rows: dict | Callable = field(default_factory=dict)
    figure: Callable | None = None
    arrange: Callable = list
    options: dict = field(default_factory=dict)
    record: str | None = None
    is_done: Callable = lambda args, record: True

    def __post_init__(self):
        path = Path(self.script).resolve()
        home = path.parents[path.parent.name == "reproduce"]
        self.name = path.relative_to(home).as_posix()
        self.records = home / "results" / (self.record or f"{path.stem}.json")

    def main(self):
        args = self.arguments()
        use_threads(args.threads)
        if not (args.show or args.records):
            self.measure(args)
        places = args.records or self._places(args)
        records = read(*places)
        if not records:
            raise SystemExit(f"There is no record in {args.out or self.records}.")
        self.publish(records, origin(*places), args)

    def arguments(self):
        doc = inspect.getmodule(self.run).__doc__ or ""
        parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
        for name, default in self.options.items():
            parser.add_argument(f"--{name.replace('_', '-')}", **_argument(default))
        add = parser.add_argument
        add("--threads", type=int, help="of one operation of TensorFlow; default: all")
        add("--out", type=Path, help=f"where the records are; default: {self.records}")
        add("--show", action="store_true", help="what is there, no measurement")
        add("--from", dest="records", nargs="+", type=Path, help="show these records")
        add("--page", type=Path, help="a file whose marked table to write anew")
        if self.figure:
            stem = self.records.stem
            add("--figure", type=Path, default=Path("docs", f"{stem}.png"))
        return parser.parse_args()

    def _places(self, args):
        if args.out:
            return [args.out]
        return sorted(self.records.parent.glob(self.records.name.format(backend="*")))

    def measure(self, args):
        """Records the rows that are not there, each as soon as it is known."""
        name = self.records.name.format(backend=_backend())
        out = args.out or self.records.with_name(name)
        hidden = ("out", "records", "show", "page", "figure")
        settings = {k: v for k, v in vars(args).items() if k not in hidden}
        skipped = 0
        for row in self._rows(args):
            there = [record for record in read(out) if belongs(record, row)]
            if there and all(self.is_done(args, record) for record in there):
                skipped += 1
                continue
            found = self.run(args, **(there[0] if there else {}) | row)
            for state in found if inspect.isgenerator(found) else [found]:
                states = state if isinstance(state, list) else [state]
                write(out, row, [{**row, **s} for s in states], settings)
            print(self.name, *row.values(), flush=True)
        if skipped:
            print(f"Not measured anew, as {out} has them: {skipped} rows.")

    def _rows(self, args):
        if callable(self.rows):
            return self.rows(args)
        values = (vars(args)[option] for option in self.rows.values())
        lists = (value if isinstance(value, list) else [value] for value in values)
        rows = itertools.product(*lists)
        return [dict(zip(self.rows, row, strict=True)) for row in rows]

    def publish(self, records, source, args):
        records = self.arrange(records)
        text = f"{self.table(records)}\n\n{source}"
        Console(width=150).print(Markdown(text))
        if args.page:
            fill(args.page, self.name, text)
        if self.figure:
            args.figure.parent.mkdir(parents=True, exist_ok=True)
            self.figure(records, args.figure)
            _shrink(args.figure)


def _shrink(path):
    """Leaves 64 colors in a picture, if one was drawn, for a small file."""
    if path.exists():
        from PIL import Image  # which comes with Matplotlib

        Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def _argument(default):
    """The keywords of `add_argument` for the default of an option."""
    if isinstance(default, Choice):
        values = [*default.values]
        chosen = values if default.default is None else default.default
        return {"choices": values, **_argument(chosen)}
    if isinstance(default, type):
        return {"type": default}
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction, "default": default}
    if isinstance(default, list):
        kind = type(default[0]) if default else float
        return {"type": kind, "nargs": "*", "default": default}
    return {"type": type(default), "default": default}


def _backend():
    import keras  # not at the top: workers that run on PyTorch need no Keras

    return keras.backend.backend()


def use_threads(count):
    if count and _backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)


def read(*places):
    """The records in files or folders, with backend, versions and settings of the file.

    Those of a record that has a file of its own are among its entries.
    """
    records = []
    for file in files(*places):
        settings = file.get("settings", {})
        common = {key: file.get(key) for key in ("backend", "versions")}
        common["settings"] = settings
        if isinstance(file["result"], dict):
            common |= settings
        records += [{**common, **row} for row in _listed(file["result"])]
    return records


def write(out, row, records, settings):
    """The records of a row, in place of those that are there."""
    from keras_bsnn._record import environment  # which imports Keras

    path, result = out, records
    if out.suffix != ".json":
        path, (result,) = out / _file_name(row), records
    elif out.exists():
        others = _listed(json.loads(out.read_text())["result"])
        result = [r for r in others if not belongs(r, row)] + records
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**environment(), "settings": settings, "result": result}
    partial = path.with_suffix(".partial")  # what is there stays until it is whole
    partial.write_text(json.dumps(record, indent=1, default=str) + "\n")
    partial.replace(path)


def belongs(record, row):
    """Whether a record is one of a row; what it does not have is `None`."""
    return all(record.get(key) == value for key, value in row.items())


def _listed(result):
    return result if isinstance(result, list) else [result]


def _file_name(row):
    """For instance `haar_100_0.json`; of what is true or false, the name if true."""
    given = {k: v for k, v in row.items() if v is not None and v is not False}
    return "_".join(k if v is True else str(v) for k, v in given.items()) + ".json"


def fill(path, name, text):
    """Replaces what is between the markers of `name` in a Markdown file."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    parts = re.split(f"({re.escape(begin)}|{re.escape(end)})", path.read_text())
    if len(parts) != 5:
        raise SystemExit(f"{path} must have {begin} and {end} once each.")
    parts[2] = f"\n{text}\n"
    path.write_text("".join(parts))


def columns(cells, left=1):
    """A table of a column for each entry: its head, and a format or a function.

    Either makes a cell of a record; the former has its entries by their names.
    """

    def cell(maker, row):
        return maker(row) if callable(maker) else maker.format(**row)

    def table(records):
        lines = ([cell(maker, row) for maker in cells.values()] for row in records)
        return markdown(cells, lines, left)

    return table


def markdown(heads, lines, left=1):
    """A table with as many columns of text, and else of numbers."""
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, marks, *lines))


def significant(value, digits=3):
    """So many digits; what is not finite as text, which JSON can hold."""
    value = float(value)
    return float(f"{value:.{digits}g}") if math.isfinite(value) else str(value)
