"""The scripts on accuracy, depth and learning rates, small: they do what they say."""

import importlib
import time

import keras
import numpy as np
import pytest
from scripts import REPRODUCE, result, runner

from keras_bsnn import datasets
from keras_bsnn.ops import orthogonal

pytestmark = pytest.mark.slow

SMALL = ("--dataset", "digits")

slow_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="minutes of compilation"
)


@pytest.fixture
def run(monkeypatch):
    return runner(REPRODUCE, monkeypatch)


@pytest.fixture
def bsnn(monkeypatch):
    monkeypatch.syspath_prepend(REPRODUCE)
    return importlib.import_module("_bsnn")


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(REPRODUCE)
    return importlib.import_module("_training")


@slow_on_jax
def test_table(tmp_path, run, capsys):
    small = ["--depth", 6, "--width", 24, "--epochs", 3, "--batch-size", 64]
    small += ["--recipes", "authors", "best", "--rows", "relu", "gp_relu"]
    small += ["--out", tmp_path]
    run("bsnn_table.py", *SMALL, *small)
    rows = {}
    for path in tmp_path.glob("*.json"):
        row = result(path)
        rows[row["recipe"], row["form"]] = row
        assert [point["step"] for point in row["curve"]] == [23, 46, 69]
        assert row["curve"][-1]["accuracy"] == pytest.approx(row["held_out"], abs=0.02)
    networks = {("authors", "relu"), ("authors", "gp_relu"), ("best", "gp_relu")}
    assert set(rows) == networks
    assert rows["best", "gp_relu"]["held_out"] > 0.8
    assert rows["authors", "relu"]["held_out"] < 0.5
    for (recipe, _), row in rows.items():
        assert row["orthogonality_error"] < (1e-2 if recipe == "authors" else 1e-6)
    spread = rows["authors", "relu"]["largest_over_smallest_norm"]
    assert (
        spread["forward"]
        > 2 * rows["best", "gp_relu"]["largest_over_smallest_norm"]["forward"]
    )

    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    capsys.readouterr()
    run("bsnn_table.py", *SMALL, *small)  # all are there: nothing is trained
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.json")}
    accuracy = f"{100 * rows['best', 'gp_relu']['held_out']:.2f}"
    assert accuracy in capsys.readouterr().out


@slow_on_jax
def test_table_of_several_seeds_and_on_validation_data(tmp_path, run, capsys):
    small = ["--depth", 2, "--width", 8, "--epochs", 1, "--rows", "gp_tanh"]
    small += ["--recipes", "orthogonal", "--seeds", 0, 1, "--learning-rate", 0.2]
    run("bsnn_table.py", *SMALL, *small, "--validate", "--out", tmp_path)
    rows = [result(path) for path in tmp_path.glob("*.json")]
    assert {row["seed"] for row in rows} == {0, 1}
    assert all(row["validation"] and row["learning_rate"] == 0.2 for row in rows)
    assert all(row["orthogonality_error"] < 1e-6 for row in rows)
    assert rows[0]["curve"] != rows[1]["curve"]
    accuracies = [row["held_out"] for row in rows]
    deviation = 100 * np.std(accuracies, ddof=1)
    assert f"± {deviation:.2f}" in capsys.readouterr().out


@slow_on_jax
def test_race(tmp_path, run, capsys):
    out = tmp_path / "race.json"
    small = ["--depth", 4, "--width", 16, "--epochs", 3, "--every", 4]
    small += ["--batch-size", 64]
    small += ["--accuracy", 0.7, "--limit", 0.5, "--out", out]
    run("bsnn_race.py", *SMALL, *small, "--rows", "tanh")
    (row,) = result(out)
    ours, theirs = (row[recipe] for recipe in ("best", "authors"))
    assert ours["reached"] and ours["curve"][-1]["accuracy"] >= 0.7
    assert all(point["accuracy"] < 0.7 for point in ours["curve"][:-1])
    if not theirs["reached"]:
        limit = 0.5 * ours["curve"][-1]["seconds"]
        assert theirs["curve"][-1]["seconds"] >= limit
        assert "> " in capsys.readouterr().out
    run("bsnn_race.py", *SMALL, *small, "--rows", "tanh")  # it is there
    assert result(out) == [row]


@slow_on_jax
def test_depth(tmp_path, run):
    figure = tmp_path / "depth.png"
    small = ["--depths", 2, 30, "--width", 32, "--epochs", 2, "--activation", "tanh"]
    run("depth.py", *SMALL, *small, "--out", tmp_path, "--figure", figure)
    rows = {}
    for path in tmp_path.glob("*.json"):
        rows[result(path)["depth"]] = result(path)
    assert set(rows) == {2, 30}
    for depth, row in rows.items():
        assert row["norms"]["layer"] == [*range(depth + 1)]
        assert max(row["largest_over_smallest_norm"].values()) < 3
        assert row["orthogonality_error"] < 1e-6
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_transfer(tmp_path, run, capsys):
    out, figure = tmp_path / "transfer.json", tmp_path / "transfer.png"
    small = ["--depths", 30, "--widths", 16, "--width", 8, "--depth", 3]
    small += ["--steps", 4, "--batch-size", 64, "--out", out, "--figure", figure]
    run("bsnn_transfer.py", *SMALL, *small, "--optimizers", "StiefelMuon")
    points = result(out)
    assert len(points) == 2 * 7
    assert len({p["learning_rate"] for p in points}) == 7
    losses = [p["loss"] for p in points if p["depth"] == 30]
    assert len(set(losses)) == 7, "the learning rate makes no difference"
    assert figure.read_bytes().startswith(b"\x89PNG")
    run("bsnn_transfer.py", *SMALL, *small, "--optimizers", "StiefelMuon")
    assert result(out) == points


@slow_on_jax
def test_optimizers(tmp_path, run, capsys):
    """Those that were tried in place of the spectral sign train as well."""
    out = tmp_path / "optimizers.json"
    tried = "sign of the 8 largest values, others scaled"
    small = ["--depth", 6, "--width", 12, "--batch-size", 64, "--seeds", 0]
    run("bsnn_optimizers.py", *SMALL, *small, "--optimizers", tried, "--out", out)
    (row,) = result(out)
    assert row["accuracy"] > 0.5
    assert "0.1" in capsys.readouterr().out


@slow_on_jax
def test_time(tmp_path, run, capsys):
    out = tmp_path / "time.json"
    small = ["--depth", 6, "--width", 16, "--batch-size", 64, "--seeds", 0]
    small += ["--every", 5, "--accuracy", 0.6, "--optimizers", "StiefelMuon"]
    run("bsnn_time.py", *SMALL, *small, "--out", out)
    (row,) = result(out)
    assert row["reached"] and row["step"] % 5 == 0 and row["step"] < 46
    assert "1 of 1" in capsys.readouterr().out


def test_the_clock_stops_while_it_evaluates(training):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10))
    training.compile_model(model, "sgd")
    data = datasets.load("digits", "train", 100)

    def slow(*_):
        time.sleep(0.5)
        return 0.1

    clock = training.Clock(data, every=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "evaluate", slow)
        begin = time.perf_counter()
        model.fit(data, verbose=0, callbacks=[clock])
    total = time.perf_counter() - begin
    assert len(clock.curve) == 3
    assert clock.curve[-1]["seconds"] <= total - 2 * 0.5 + 0.1


def test_the_paper_s_recipe_keeps_unit_columns(bsnn, training):
    model = bsnn.network(bsnn.RECIPES["authors"], "gp_relu", 3, 8, "digits", 0)
    training.compile_model(model, keras.optimizers.SGD(0.1))
    model.fit(datasets.load("digits", "train", 50), verbose=0)
    stack = next(layer for layer in model.layers if hasattr(layer, "depth"))
    kernels = keras.ops.convert_to_numpy(stack.weights[0])
    assert np.allclose(np.linalg.norm(kernels, axis=1), 1, atol=1e-5)
    assert np.max(np.asarray(orthogonal.orthogonality_error(kernels))) > 1e-3


def test_the_authors_activations(bsnn):
    for name, shift in {"relu": 0.0, "gelu": -0.90965, "selu": 0.25845}.items():
        assert bsnn.authors_activation(f"gp_{name}").shift == pytest.approx(
            shift, abs=1e-5
        )
    x = keras.ops.convert_to_tensor([-1.0, 2.0])
    assert np.allclose(bsnn.authors_activation("leaky_relu")(x), [-0.01, 2.0])


@slow_on_jax
def test_deep_cnn(tmp_path, run):
    small = ["--depths", 6, "--filters", 8, "--batch-size", 64, "--rates", 0.1]
    small += ["--constructions", "orthogonal", "delta-orthogonal start"]
    small += ["--out", tmp_path / "record", "--checkpoints", tmp_path / "checkpoints"]
    small += ["--figure", tmp_path / "norms.png"]
    run("deep_cnn.py", *SMALL, *small, "--epochs", 1)
    rows = {}
    for path in (tmp_path / "record").glob("*.json"):
        row = result(path)
        rows[row["construction"]] = row
    ours, published = rows["orthogonal"], rows["delta-orthogonal start"]
    assert ours["curve"][-1]["accuracy"] > 0.5
    assert float(ours["rms_log"]) < 1e-5 < 1e-3 < float(published["rms_log"])
    assert len(ours["norms"]["gradient"]) == 6
    assert (tmp_path / "norms.png").stat().st_size > 1000


def test_the_free_convolution_of_deep_cnn_is_circular(monkeypatch):
    monkeypatch.syspath_prepend(REPRODUCE)
    script = importlib.import_module("deep_cnn")
    layer = script.CircularConv2D(5, 3, padding="same", bias_initializer="ones")
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype("float32")
    wrapped = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    y = keras.ops.convert_to_numpy(layer(x))
    expected = keras.ops.conv(wrapped, layer.kernel, padding="valid") + 1
    np.testing.assert_allclose(y, keras.ops.convert_to_numpy(expected), atol=1e-5)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    # A layer correlates, where a product of spectra convolves.
    spectrum = script.spectrum(kernel[::-1, ::-1], (4, 6))
    product = np.einsum("bhwc,hwcn->bhwn", np.fft.fft2(x, axes=(1, 2)), spectrum)
    np.testing.assert_allclose(np.fft.fft2(y - 1, axes=(1, 2)), product, atol=1e-3)


def test_the_critical_variances_of_deep_cnn(monkeypatch):
    """As published for 10,000 layers, and those that keep the mean square."""
    monkeypatch.syspath_prepend(REPRODUCE)
    script = importlib.import_module("deep_cnn")
    kernel, bias = script.critical_variances(1e-4)
    assert kernel == pytest.approx(1.0002, abs=1e-5)
    assert bias == pytest.approx(1.3e-12, rel=0.05)
    z = np.random.default_rng(0).normal(size=10**6)
    kernel, bias = script.critical_variances(0.1)
    mean_square = kernel * np.mean(np.tanh(0.1**0.5 * z) ** 2) + bias
    assert mean_square == pytest.approx(0.1, rel=0.01)
