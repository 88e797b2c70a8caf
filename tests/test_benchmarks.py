"""The benchmarks, small: they run, and write what a result file must say."""

import json

import keras
import pytest
from scripts import ROOT, result, runner, table_of

from keras_bsnn._record import environment

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for figures
    return runner(ROOT / "benchmarks", monkeypatch)


def test_constraint(tmp_path, run, capsys):
    out = tmp_path / "result.json"
    small = ["--units", "8", "--depth", "2", "--batch-size", "4", "--rounds", "2"]
    run("constraint.py", *small, "--out", out)
    rows = result(out)
    names = [row["retraction"] for row in rows]
    assert names == ["none", "newton_schulz", "cayley", "qr"]
    assert rows[0]["ratio"] == 1
    assert all(row["step_milliseconds"] > 0 for row in rows)
    assert "newton_schulz" in capsys.readouterr().out


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX's precisions")
def test_correctness(tmp_path, run):
    out = tmp_path / "correctness.json"
    checks = ["polar: error", "stack of BatchNormDense, against the CPU"]
    run("correctness.py", "--checks", *checks, "--out", out)
    rows = result(out)
    assert [row["precision"] for row in rows] == ["default", "bfloat16", "highest"]
    assert all(row["is_right"] and row["largest"] < row["bound"] for row in rows)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="measures JAX")
def test_floor(tmp_path, run):
    out = tmp_path / "floor.json"
    small = ["--cases", "3,8,4", "5,16,4", "--rounds", "2", "--megabytes", "1"]
    run("floor.py", *small, "--out", out)
    rows = result(out)
    assert [row["depth"] for row in rows] == [3] * 4 + [5] * 4
    assert all(row["floor_seconds"] >= row["bytes_seconds"] > 0 for row in rows)


def test_depth(tmp_path, run):
    out, plot = tmp_path / "depth.json", tmp_path / "depth.png"
    names = ["ours, TensorFlow XLA", "jax.lax.scan"]
    small = ["--cases", "4,4,5", "--steps", "3", "--repeats", "1"]
    run("depth.py", *small, "--contenders", *names, "--out", out, "--figure", plot)
    rows = result(out)
    assert [row["contender"] for row in rows] == names
    for row in rows:
        assert "failed" not in row
        assert row["needed_memory_bytes"] == 4 * (3 * 4 * 4**2 + 4 * 5 * 4)
        assert row["first_step_seconds"] > row["step_seconds"] > 0
        per_layer = row["step_microseconds_per_layer"]
        assert per_layer == pytest.approx(1e6 * row["step_seconds"] / 4)
        assert row["spread"] == pytest.approx([per_layer] * 2)
        assert row["peak_memory_bytes"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def recorded(tmp_path):
    """A result of depth.py, with a contender that failed in one case."""
    done = {"first_step_seconds": 2.0, "step_seconds": 0.001, "spread": [9.0, 11.0]}
    done |= {"step_microseconds_per_layer": 10.04, "ratio": 1.0, "memory_ratio": 1.5}
    failed = {"failed": "more than 900 s"}
    rows = [
        {"depth": depth, "units": 16, "batch_size": 5, "contender": name, **row}
        for depth, name, row in (
            (100, "one", done),
            (100, "other", done),
            (50000, "one", done),
            (50000, "other", failed),
        )
    ]
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps({**environment(), "result": rows}))
    return path


def test_depth_of_a_record(tmp_path, run, recorded):
    page, plot = tmp_path / "page.md", tmp_path / "depth.png"
    begin, end = "<!-- depth.py: begin -->", "<!-- depth.py: end -->"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for _ in range(2):  # the second time finds the markers again
        run("depth.py", "--from", recorded, "--page", page, "--figure", plot)
    head, _, *lines = table_of(page)
    assert "| 100 x 16 | 50,000 x 16 | first step, 100 x 16 |" in head
    assert lines == [
        "| one | 10 µs | 10 µs | 2 s | 2 s |",
        "| other | 10 µs | more than 900 s | 2 s | more than 900 s |",
    ]
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("\nafter\n")
    assert plot.exists()
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="must have"):
        run("depth.py", "--from", recorded, "--page", page)


def test_a_contender_that_fails(tmp_path, run):
    out = tmp_path / "depth.json"
    small = ["--cases", "4,4,5", "--repeats", "2", "--timeout", "0.1"]
    run("depth.py", *small, "--contenders", "ours, TensorFlow", "--out", out)
    (row,) = result(out)
    assert row["failed"] == "more than 0.1 s"
    assert len(row["runs"]) == 1


def test_retraction(tmp_path, run):
    out = tmp_path / "retraction.json"
    plain, tolerant = "ours, plain, TensorFlow", "ours, tolerance 5e-5, TensorFlow"
    small = ["--depth", "3", "--units", "4", "--batch-size", "5", "--steps", "3"]
    small += ["--repeats", "1", "--learning-rate", "0.1"]
    run("retraction.py", *small, "--contenders", plain, tolerant, "--out", out)
    rows = {row["contender"]: row for row in result(out)}
    assert rows[plain]["ratio"] == 1
    assert rows[tolerant]["ratio"] > 0
    assert rows[plain]["last_error"] > 1e-3
    assert rows[tolerant]["largest_error"] < 1e-4
    assert rows[tolerant]["last_error"] <= rows[tolerant]["largest_error"]


def test_recipe(tmp_path, run, capsys):
    out = tmp_path / "recipe.json"
    plain, ours = "SGD, no constraint, TensorFlow", "StiefelMuon, TensorFlow"
    small = ["--sizes", "6,8,16", "--steps", "8", "--warm-up", "2", "--repeats", "1"]
    small += ["--dataset", "digits", "--contenders", plain, ours, "--out", out]
    run("recipe.py", *small)
    rows = {row["contender"]: row for row in result(out)}
    assert rows[plain]["ratio"] == 1 and rows[ours]["ratio"] > 0
    assert rows[plain]["largest_error"] > 1e-4
    assert rows[ours]["largest_error"] < 1e-5
    assert rows[plain]["retracted"] == 0
    assert rows[ours]["retracted"] == pytest.approx(1 / 6)
    assert "6 x 8, 16" in capsys.readouterr().out


def test_orthogonality(tmp_path, run):
    out = tmp_path / "orthogonality.json"
    small = ["--sizes", "6,8,16", "--steps", "8", "--dataset", "digits"]
    run("orthogonality.py", *small, "--out", out)
    (row,) = result(out)
    assert row["steps"] == 8
    assert 0 < row["last_error"] <= row["largest_error"] < 1e-5


def test_fold(tmp_path, run):
    out, page = tmp_path / "fold.json", tmp_path / "page.md"
    page.write_text("<!-- fold.py: begin -->\n<!-- fold.py: end -->\n")
    small = ["--depth", "30", "--units", "8", "--inputs", "12"]
    small += ["--batch-sizes", "5", "50", "--rounds", "2"]
    run("fold.py", *small, "--out", out)
    (found,) = result(out)
    assert found["layers"] == ["Flatten", "Dense"]
    assert found["largest_difference"] < 1e-5 * found["largest_logit"]
    assert [row["batch_size"] for row in found["per_example"]] == [5, 50]
    for row in found["per_example"]:
        assert row["deep"] > 0 and row["folded"] > 0
        assert row["quartiles"][0] <= row["ratio"] <= row["quartiles"][1]
    run("fold.py", "--from", out, out, "--page", page)
    head, _, *rows = table_of(page)
    assert head.count("deep | folded | ratio") == 2 and len(rows) == 2


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="its workers have their own backend"
)
def test_throughput(tmp_path, run):
    out, page = tmp_path / "throughput.json", tmp_path / "page.md"
    page.write_text("<!-- throughput.py: begin -->\n<!-- throughput.py: end -->\n")
    small = ["--depth", "4", "--units", "8", "--epochs", "2", "--most", "2"]
    run("throughput.py", *small, "--strategies", "mirrored", "--out", out)
    one, two = result(out)
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["of_one"] == 1 and two["of_one"] > 0
    assert len(two["losses"]) == 2 and two["largest_difference"] < 1e-5
    assert two["orthogonality_error"] < 1e-6
    run("throughput.py", "--from", out, "--page", page)
    *_, last = lines = table_of(page)
    assert len(lines) == 4 and last.startswith("| TensorFlow, mirrored | 1 x 2 | ")


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow writes these files"
)
def test_export(tmp_path, run, monkeypatch):
    monkeypatch.setattr("_latency.SECONDS", 0.01)
    out, page = tmp_path / "export.json", tmp_path / "page.md"
    page.write_text("<!-- export.py: begin -->\n<!-- export.py: end -->\n")
    names = ["batch norm, tanh"]
    small = ["--depth", "3", "--units", "5", "--epochs", "1", "--examples", "50"]
    small += ["--batch-sizes", "1", "7", "--rounds", "1", "--families", *names]
    run("export.py", *small, "--out", out)
    rows = result(out)
    assert [row["family"] for row in rows] == [name for name in names for _ in range(4)]
    for row in rows:
        for form in ("as it is", "to_keras"):
            assert row[form]["largest_difference"] < 1e-5
            assert row[form]["kilobytes"] > 1
            assert row[form]["microseconds, batch 7"] > 0
    run("export.py", "--from", out, "--page", page)
    head, _, *lines = table_of(page)
    assert "batch 1 | faster | µs per example, batch 7 | faster |" in head
    assert len(lines) == 4 and lines[2].startswith("| batch norm, tanh | LiteRT | ")


def test_recurrent(tmp_path, run):
    out, page = tmp_path / "recurrent.json", tmp_path / "page.md"
    page.write_text("<!-- recurrent.py: begin -->\n<!-- recurrent.py: end -->\n")
    names = ["ROAF, TensorFlow XLA", "jax.lax.scan by hand"]
    small = ["--cases", "20,4,3", "--repeats", "1", "--steps", "3"]
    run("recurrent.py", *small, "--contenders", *names, "--out", out)
    rows = {row["contender"]: row for row in result(out)}
    assert [*rows] == names and rows[names[0]]["step_seconds"] > 0
    run("recurrent.py", "--from", out, "--page", page)
    head, _, *lines = table_of(page)
    assert "20 steps, 4 units, batch 3" in head
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in names]


def test_versions(tmp_path, run, monkeypatch):
    out, page = tmp_path / "versions", tmp_path / "page.md"
    page.write_text("<!-- versions.py: begin -->\n<!-- versions.py: end -->\n")
    uses = ["data of sequences", "export to a SavedModel"]
    small = ["--out", out, "--page", page, "--uses"]
    run("versions.py", *small, uses[0])
    (path,) = out.iterdir()
    assert path.name == f"newest_{keras.backend.backend()}.json"
    assert result(path)["errors"] == {uses[0]: None}
    assert " | 1 of 1 |  | " in table_of(page)[-1]

    def fails(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr("keras_bsnn.export.saved_model", fails)
    with pytest.raises(SystemExit, match=f"1 of 2 fail: .*{uses[1]}"):
        run("versions.py", *small, *uses)
    assert result(path)["errors"] == {uses[0]: None, uses[1]: "OSError: no space left"}
    run("versions.py", "--show", *small, *uses)
    assert f" | 1 of 2 | {uses[1]} | " in table_of(page)[-1]
