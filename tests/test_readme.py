"""What the README shows is true: its code runs, its tables are what scripts print."""

import json
import re

import keras
import pytest
from scripts import REPRODUCE, ROOT, runner

README = (ROOT / "README.md").read_text()


def test_the_code_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "depth = 200" in code and "epochs=10" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("= 200", "= 20").replace("epochs=10", "epochs=1"), {})
    assert (tmp_path / "deep.keras").exists()
    assert (tmp_path / "deep_saved_model").exists()


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras' ops on JAX round to float32"
)
def test_the_table_of_constants(capsys, monkeypatch):
    runner(REPRODUCE, monkeypatch)("bsnn_constants.py")
    assert capsys.readouterr().out in README


@pytest.mark.parametrize(
    "script", re.findall(r"<!-- reproduce/(.*): begin -->", README)
)
def test_the_tables_of_reproduced_results(script, tmp_path, monkeypatch):
    """They are what the scripts, which have tests of their own, make of the results."""
    readme = tmp_path / "README.md"
    readme.write_text(README)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()  # for figures
    runner(REPRODUCE, monkeypatch)(script, "--show", "--readme", readme)
    assert readme.read_text() == README


def test_what_is_said_of_the_results():
    """What each row of the best recipe must reach."""
    least = {"mnist": 0.975, "fashion_mnist": 0.88}
    folder = ROOT / "examples" / "results" / "bsnn_table"
    rows = [json.loads(p.read_text())["result"] for p in folder.glob("*-best-*")]
    assert len({(row["dataset"], row["form"]) for row in rows}) == 6 * len(least)
    for row in rows:
        assert row["held_out"] >= least[row["dataset"]] and row["epochs"] <= 15
        assert max(row["largest_over_smallest_norm"].values()) < 3
    fits = {r["form"] for r in rows if r["dataset"] == "mnist" and r["train"] >= 0.995}
    assert len(fits) == 6, "train accuracy on MNIST"


def test_the_table_of_retractions():
    file = ROOT / "benchmarks" / "results" / "retraction.json"
    rows = json.loads(file.read_text())["result"]
    for row in rows:
        if "step_seconds" in row:
            numbers = f"{row['step_seconds']:.2f} s | {row['ratio']:.2f}"
            numbers += f" | {row['largest_error']:.0e}"
            assert f"| {row['contender']} | {numbers} |" in README


def test_the_table_of_depths():
    """It is what the script makes of its results, and the script itself is tested."""
    rows = json.loads((ROOT / "benchmarks/results/depth.json").read_text())["result"]
    for row in rows:
        step = f"{float(format(row['step_microseconds_per_layer'], '.3g')):,.10g} µs"
        assert re.search(
            rf"^\| {re.escape(row['contender'])} \|.* {step} ", README, re.M
        )
