"""The scripts on batch normalization, small: they do what they say."""

import keras
import numpy as np
import pytest
from scripts import REPRODUCE, result, runner

pytestmark = pytest.mark.slow

ROWS = [
    *("orthogonal", "Gaussian kernels", "tanh, gain", "tanh, no gain", "sin, no gain"),
    *("80 repeated samples", "80 repeated, shrinkage 0.9"),
]
slow_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="minutes of compilation"
)


@pytest.fixture
def run(monkeypatch):
    return runner(REPRODUCE, monkeypatch)


def test_gradients(tmp_path, run, capsys):
    out, figure = tmp_path / "out.json", tmp_path / "figure.png"
    small = ["--depths", 5, 60, "--width", 20, "--batch-size", 20]
    small += ["--exponents", 0.1, "--out", out, "--figure", figure]
    run("batchnorm_gradients.py", *small, "--rows", *ROWS, "--seeds", 0)
    points = result(out)

    def growth(row):
        """Of the logarithm from 5 to 60 layers."""
        ends = {p["depth"]: p["log_gradient"] for p in points if p["row"] == row}
        return float(ends[60]) - float(ends[5])

    assert abs(growth("orthogonal")) < 0.5
    assert growth("Gaussian kernels") > abs(growth("orthogonal"))
    shrunk = growth("80 repeated, shrinkage 0.9")
    assert growth("80 repeated samples") > shrunk + 0.5
    assert growth("tanh, no gain") > 3 and growth("sin, no gain") > 5
    assert abs(growth("tanh, gain")) < 1 < growth("tanh, exponent 0.1")
    assert figure.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "paper" in printed and "0.30" in printed
    run("batchnorm_gradients.py", *small, "--rows", "orthogonal", "--seeds", 0, 1)
    same, new = result(out)[: len(points)], result(out)[len(points) :]
    fifth, sixth = (p for p in new if p["row"] == "orthogonal")
    assert same == points and {p["seed"] for p in new} == {1}
    assert (fifth["depth"], sixth["depth"]) == (5, 60)
    deep = [p["log_gradient"] for p in (*points, sixth) if p["row"] == "orthogonal"]
    assert f"{np.mean(deep[1:]):.2f}" in capsys.readouterr().out


@slow_on_jax
def test_isometry(tmp_path, run, capsys):
    out, figure = tmp_path / "out.json", tmp_path / "figure.png"
    small = ["--widths", 8, "--depth", 120, "--seeds", *range(5)]
    run("batchnorm_isometry.py", *small, "--out", out, "--figure", figure)
    (row,) = result(out)
    assert row["width"] == 8 and len(row["gaps"]) == 120 and row["every"] == 1
    assert row["gaps"][0] > 0.3 and row["gaps"][-1] < 1e-5
    assert abs(row["layers_per_e"] - 4.5) < 0.5  # (d + 1) / 2
    assert f"{row['layers_per_e']:.1f}" in capsys.readouterr().out
    assert figure.stat().st_size > 10_000


@slow_on_jax
def test_table(tmp_path, run):
    small = ["--dataset", "digits", "--depth", 60, "--width", 24, "--epochs", 4]
    small += ["--samples", 1000, "--out", tmp_path]
    run("batchnorm_table.py", *small, "--rows", "tanh")
    run("batchnorm_table.py", *small, "--rows", "tanh", "--recipe", "paper")
    rows = [result(path) for path in tmp_path.glob("*.json")]
    best, paper = sorted(rows, key=lambda row: row["recipe"])
    assert (best["recipe"], paper["recipe"]) == ("best", "paper")
    assert best["row"] == paper["row"] == "tanh"
    assert best["recalibrated"] > 0.85
    assert abs(best["recalibrated"] - best["batch statistics"]) < 0.1
    assert best["moving averages"] < 0.5  # what it is about
    assert paper["recalibrated"] < best["recalibrated"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    run("batchnorm_table.py", *small, "--rows", "tanh")
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.json")}
