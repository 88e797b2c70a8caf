"""`examples/stack_a_model.py` and `benchmarks/stacking.py`, in small."""

import hub  # noqa: F401  which skips these tests without keras-hub
import pytest
from scripts import ROOT, result, runner

pytestmark = pytest.mark.slow

SMALL = ["--width", 16, "--heads", 2, "--length", 8, "--steps", 3]


def test_forms_of_a_block(tmp_path, monkeypatch):
    """In processes of their own."""
    run = runner(ROOT / "examples", monkeypatch)
    out = tmp_path / "result.json"
    run("stack_a_model.py", *SMALL, "--model", "block", "--layers", 3, "--out", out)
    found = result(out)
    assert [*found] == ["plain", "stacked"]
    assert [found[form]["weights"] for form in found] == [3 * 16, 16]
    for row in found.values():
        assert row["first_step_seconds"] > row["build_seconds"] > 0
        assert row["peak_memory_bytes"] > row["memory_before_bytes"] > 0
        assert row["losses"][-1] < row["losses"][0]
    assert found["stacked"]["largest_difference"] < 1e-5


def test_the_benchmark_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    run = runner(ROOT / "benchmarks", monkeypatch)
    out = tmp_path / "stacking.json"
    small = [*SMALL, "--models", "opt", "--layers", 4, "--out", out]
    run("stacking.py", *small, "--forms", "stacked", "--limit", 0.1)
    (late,) = result(out)
    assert late["failed"] == "more than 0.1 s"
    run("stacking.py", *small, "--forms", "stacked", "checkpoints")
    stacked, checkpoints = result(out)
    assert stacked["report"] == [
        "transformer_layer_0 to transformer_layer_3: 4 equal parts became a loop."
    ]
    assert checkpoints["losses"] == pytest.approx(stacked["losses"], rel=1e-4)
    capsys.readouterr()
    run("stacking.py", *small, "--forms", "stacked", "checkpoints", "--limit", 0.1)
    assert "Not measured anew" in capsys.readouterr().out


def test_an_unknown_model(tmp_path, monkeypatch):
    run = runner(ROOT / "examples", monkeypatch)
    with pytest.raises(SystemExit, match=r"--model must be one of bert, .*, block"):
        run("stack_a_model.py", "--model", "gpt5", "--form", "plain")
