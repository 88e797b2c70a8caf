"""The runner of the benchmarks and the reproductions, on an experiment of no cost."""

import os
import runpy
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from scripts import ROOT, result, table_of

SCRIPT = '''"""Squares, slowly.

More words."""
from PIL import Image
from runner import Choice, Experiment, columns

def run(args, number, name, steps=(), **_):
    print("measured", number, name)
    for _ in range(args.most - len(steps)):
        steps = [*steps, number]
        yield {"steps": steps, "square": number**2}
        if number == args.fail:
            raise KeyboardInterrupt

def figure(records, path):
    picture = Image.new("L", (len(records), 2), 255)
    picture.putdata([row["square"] % 251 for row in records] * 2)
    picture.save(path)

Experiment(
    __file__,
    run,
    columns({"": "{name}", "square": "{square:,}", "steps": "{steps}"}),
    rows={"number": "numbers", "name": "names"},
    figure=figure,
    options={
        "numbers": [1, 100], "names": Choice(["a", "b"], ["a"]), "most": 2, "fail": int
    },
    arrange=lambda records: sorted(records, key=lambda row: -row["number"]),
    is_done=lambda args, record: len(record["steps"]) >= args.most,
).main()
'''


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs the script, and returns what it printed."""
    script = tmp_path / "reproduce" / "squares.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["squares.py", *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_rows_become_records_a_table_and_a_figure(run, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- reproduce/squares.py: begin -->\n<!-- reproduce/squares.py: end -->"
    )
    run("--page", page)
    records = result(tmp_path / "results" / "squares.json")
    assert records == [
        {"number": n, "name": "a", "steps": [n, n], "square": n**2} for n in (1, 100)
    ]
    assert table_of(page) == [
        "|  | square | steps |",
        "| --- | ---: | ---: |",
        "| a | 10,000 | [100, 100] |",
        "| a | 1 | [1, 1] |",
    ]
    *_, origin, _ = page.read_text().splitlines()
    assert f", {os.cpu_count()} cores. Keras {keras.__version__}" in origin
    with Image.open(tmp_path / "docs" / "squares.png") as picture:
        assert picture.size == (2, 2) and picture.mode == "P"  # of few colors
        reds = np.asarray(picture.convert("RGB"))[0, :, 0]
    np.testing.assert_array_equal(reds, [10_000 % 251, 1])


def test_only_what_is_not_there_is_measured(run, tmp_path):
    first = run("--numbers", 1)
    assert "measured 1 a" in first
    again = run("--names", "b", "a")
    assert "measured 1 a" not in again
    measured = [x for x in again.splitlines() if x.startswith("measured ")]
    assert measured == ["measured 1 b", "measured 100 b", "measured 100 a"]
    assert "measured" not in run("--show", "--names", "a")


@pytest.mark.parametrize("out", ["records.json", "records"])
def test_what_is_broken_off_goes_on(run, tmp_path, out):
    with pytest.raises(KeyboardInterrupt):
        run("--numbers", 1, 2, "--fail", 2, "--out", out)
    run("--numbers", 1, 2, "--out", out)
    path = tmp_path / out
    is_folder = path.is_dir()
    rows = [result(path / f"{n}_a.json") for n in (1, 2)] if is_folder else result(path)
    assert [row["steps"] for row in rows] == [[1, 1], [2, 2]]
    assert not [*tmp_path.rglob("*.partial")]


def test_records_of_several_files(run):
    for number in (1, 2, 3):
        run("--numbers", number, "--out", f"{number}.json")
    shown = run("--from", "1.json", "3.json")
    assert "9" in shown and "4" not in shown


def test_what_does_not_exist(run, tmp_path):
    with pytest.raises(SystemExit, match="no record"):
        run("--show")
    with pytest.raises(SystemExit):
        run("--names", "c")
    page = tmp_path / "page.md"
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="must have"):
        run("--page", page)


def test_none_is_what_a_record_does_not_have(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import runner

    assert runner.belongs({"depth": 3}, {"depth": 3, "gain": None})
    assert not runner.belongs({"depth": 3, "gain": 0.1}, {"depth": 3, "gain": None})
    assert not runner.belongs({"depth": 3}, {"depth": 3, "seed": 0})
