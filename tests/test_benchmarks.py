"""The benchmarks, small: they run, and write what a result file must say."""

import json
import pathlib
import runpy
import sys

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


def test_constraint(tmp_path, monkeypatch, capsys):
    out = tmp_path / "result.json"
    small = ["--units", "8", "--depth", "2", "--batch-size", "4", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", ["constraint.py", *small, "--out", str(out)])
    runpy.run_path(str(BENCHMARKS / "constraint.py"), run_name="__main__")
    record = json.loads(out.read_text())
    assert record["versions"]["keras"] and record["machine"]["cores"]
    names = [row["retraction"] for row in record["result"]]
    assert names == ["none", "newton_schulz", "cayley", "qr"]
    assert record["result"][0]["ratio"] == 1
    assert all(row["step_milliseconds"] > 0 for row in record["result"])
    assert "newton_schulz" in capsys.readouterr().out
