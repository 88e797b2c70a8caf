"""Runs the scripts of `benchmarks/` and `examples/`, and reads what they leave."""

import json
import pathlib
import runpy
import sys

ROOT = pathlib.Path(__file__).parents[1]
REPRODUCE = ROOT / "examples" / "reproduce"


def runner(folder, monkeypatch):
    """A function that runs a script of a folder, as `python folder/script ...` does."""
    monkeypatch.syspath_prepend(folder)

    def run(script, *arguments):
        path = str(folder / script)
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        runpy.run_path(path, run_name="__main__")

    return run


def table_of(page):
    """The lines of the only table of a page."""
    lines = page.read_text().splitlines()
    return [line for line in lines if line.startswith("|")]


def result(path):
    """What a record says, which must also say the versions and the machine."""
    record = json.loads(path.read_text())
    assert record["versions"]["keras"] and record["machine"]["cores"]
    return record["result"]
