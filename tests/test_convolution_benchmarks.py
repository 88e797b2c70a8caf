"""The benchmarks of convolutions, small: they run, and measure what they say."""

import keras
import numpy as np
import pytest
from scripts import ROOT, result, runner, table_of

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return runner(ROOT / "benchmarks", monkeypatch)


def page_of(tmp_path, script):
    page = tmp_path / "page.md"
    page.write_text(f"<!-- {script}: begin -->\n<!-- {script}: end -->\n")
    return page


def test_a_step(tmp_path, run):
    out, page = tmp_path / "step.json", page_of(tmp_path, "convolution.py")
    plain, ours = "keras Conv2D, TensorFlow", "ours, TensorFlow"
    small = ["--channels", "4", "--size", "5", "--batch-size", "2", "--repeats", "1"]
    small += ["--steps", "3", "--warm-up", "2", "--out", out, "--page", page]
    run("convolution.py", *small, "--contenders", plain, ours)
    rows = {row["contender"]: row for row in result(out)}
    assert rows[plain]["ratio"] == rows[plain]["ratio_to_plain"] == 1
    steps = [rows[name]["step_seconds"] for name in (plain, ours)]
    assert rows[ours]["ratio"] == pytest.approx(steps[1] / steps[0])
    assert rows[plain]["largest_error"] > 0.1
    assert rows[ours]["largest_error"] < 1e-5
    *_, last = table_of(page)
    assert last.startswith(f"| {ours} | 2 x 5 x 5 x 4 | ")


def test_the_error_of_a_kernel(monkeypatch):
    """It is that of the singular values of the matrix of a circular convolution."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from convolution import singular_value_error

    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 2))
    size = 4
    pixels = np.eye(size * size * 2).reshape(-1, size, size, 2)
    matrix = sum(
        np.roll(pixels, (1 - i, 1 - j), axis=(1, 2)) @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    ).reshape(len(pixels), -1)
    values = np.linalg.svd(matrix, compute_uv=False)
    expected = np.abs(values - 1).max()
    assert singular_value_error(kernel, size) == pytest.approx(expected)


def test_a_stack(tmp_path, run):
    out, page = tmp_path / "stack.json", page_of(tmp_path, "convolution_depth.py")
    names = ["ours, TensorFlow", "jax.lax.scan of convolutions"]
    small = ["--cases", "10,4,3,2", "--repeats", "1", "--steps", "3"]
    small += ["--floor", "--megabytes", "1", "--rounds", "2", "--out", out]
    run("convolution_depth.py", *small, "--page", page, "--contenders", *names)
    rows = result(out)
    assert [row["contender"] for row in rows] == names
    for row in rows:
        assert row["compile_seconds"] > 0
        floor = row["step_seconds"] / row["floor_seconds"]
        assert row["floor_ratio"] == pytest.approx(floor)
    *_, ours, scan = table_of(page)
    assert ours.startswith("| ours, TensorFlow | 10 | 2 x 3 x 3 x 4 | ")
    assert " µs | 1.00 | " in scan


def test_compilations_are_next_to_that_of_the_least_depth(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from convolution_depth import arranged

    sizes = {"contender": "one", "channels": 2, "size": 3, "batch_size": 4}
    times = {1000: 3.0, 10: 2.0}
    rows = [{**sizes, "depth": d, "compile_seconds": s} for d, s in times.items()]
    rows.append({**sizes, "depth": 100, "failed": "more than 1 s"})
    assert [row["compile_ratio"] for row in arranged(rows)] == [1.5, 1, None]


def test_singular_values(tmp_path, run):
    out = tmp_path / "singular_values.json"
    page = page_of(tmp_path, "convolution_orthogonality.py")
    small = ["--layers", "stack of 3", "--optimizers", "StiefelMuon", "--jits", "1"]
    small += ["--policies", "mixed_bfloat16", "--steps", "6", "--out", out]
    run("convolution_orthogonality.py", *small, "--page", page)
    (row,) = result(out)
    assert row["steps"] == 6 and row["moved"] > 1e-3
    assert 0 < row["before"] < 1e-5 and 0 < row["largest_error"] < 1e-5
    head, _, line = table_of(page)
    assert head.endswith(", jit |")
    assert line.startswith("| stack of 3 | StiefelMuon | mixed_bfloat16 | ")


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX's precisions")
def test_correctness(tmp_path, run):
    out = tmp_path / "correctness.json"
    checks = ["OrthogonalConv2D, as products and as a convolution"]
    checks += ["singular values of convolutions, SGD, mixed_bfloat16"]
    run("correctness.py", "--checks", *checks, "--out", out)
    rows = result(out)
    assert [row["precision"] for row in rows] == ["highest", "default", "bfloat16"]
    assert all(row["is_right"] and 0 < row["largest"] < row["bound"] for row in rows)
