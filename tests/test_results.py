"""What README and pages say of results is true: tables are what scripts print."""

import json
import re

import keras
import numpy as np
import pytest
from scripts import REPRODUCE, ROOT, runner

README = (ROOT / "README.md").read_text()
PAGES = {
    path.stem: path.read_text() for path in (ROOT / "docs" / "results").glob("*.md")
}
MARKED = [
    (page, script)
    for page, text in sorted(PAGES.items())
    for script in re.findall(r"<!-- (.*): begin -->", text)
]


def words(text):
    return " ".join(text.split())


def test_the_numbers_of_the_readme():
    said = words(README)
    rows = results("bsnn_table/mnist-best-gp_relu-*")
    mean = sum(row["held_out"] for row in rows) / len(rows)
    assert len(rows) == 3 and f"**{100 * mean:.1f} %** on test data after 5" in said
    tests = [100 * row["held_out"] for row in results("bsnn_depth/*")]
    assert len(tests) == 4
    assert f"**{min(tests):.1f} to {max(tests):.1f} %** on MNIST with 10, 100," in said
    rows = results("deep_cnn/orthogonal_mnist_10000_*")
    rows += results("deep_cnn/orthogonal_mnist_1000_*_augment.json")
    reached = [100 * row["curve"][-1]["accuracy"] for row in rows]
    assert f"**{reached[0]:.1f} %** on MNIST after 35 minutes on one" in said
    assert f"reach **{reached[1]:.1f} %** with shifted images" in said
    seconds = [sum(point["seconds"] for point in row["curve"]) for row in rows]
    assert max(seconds) < 36 * 60
    linear = {"row": "identity", "dataset": "mnist", "depth": 1000, "shrinkage": 0.0}
    rows = [r for r in results("batchnorm_table/*") if linear.items() <= r.items()]
    best = max(row["recalibrated"] for row in rows)
    assert f"**{100 * best:.1f} %** on test data with 1,000 linear layers" in said
    (found,) = results("million_layers/result.json")
    ends = [100 * found[when]["test_accuracy"] for when in ("before", "after")]
    assert f"from {ends[0]:.1f} to {ends[1]:.1f} % on the digits" in said
    assert f"at {found['seconds_per_step']:.1f} s a step" in said
    (rows,) = results("roaf_adding.json")
    loss = {row["network"]: row["loss"] for row in rows}
    assert f"a loss of {loss['ROAF']:.2g} in the adding problem" in said
    assert f"LSTM is at {loss['LSTM']:.2g} after the same 15 minutes" in said


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras rounds to float32 there"
)
def test_the_table_of_constants(capsys, monkeypatch):
    runner(REPRODUCE, monkeypatch)("bsnn_constants.py")
    page = ROOT / "docs" / "explanations" / "bsnn.md"
    assert capsys.readouterr().out in page.read_text()


@pytest.mark.parametrize(("page", "script"), MARKED)
def test_the_tables(page, script, tmp_path, monkeypatch):
    """They are what the scripts, which have tests of their own, make of the records."""
    copy = tmp_path / "page.md"
    copy.write_text(PAGES[page])
    monkeypatch.chdir(tmp_path)  # for figures
    folder, _, name = script.rpartition("/")
    run = runner(REPRODUCE if folder else ROOT / "benchmarks", monkeypatch)
    run(name, "--show", "--page", copy)
    assert copy.read_text() == PAGES[page]


def test_what_is_said_of_pytorch(tmp_path, monkeypatch):
    page = ROOT / "docs" / "howto" / "torch.md"
    copy = tmp_path / "page.md"
    copy.write_text(page.read_text())
    found = ROOT / "benchmarks" / "results" / "recipe_torch.json"
    run = runner(ROOT / "benchmarks", monkeypatch)
    run("recipe.py", "--show", "--out", found, "--page", copy)
    assert copy.read_text() == page.read_text()
    steps = {r["contender"]: r["step_seconds"] for r in record("recipe_torch")}
    ours = steps.pop("StiefelMuon, Keras on PyTorch")
    assert len(steps) == 2
    assert all(2.5 < ours / other < 3.5 for other in steps.values())


def test_what_is_said_of_the_results():
    """What each row of the best recipe must reach."""
    least = {"mnist": 0.975, "fashion_mnist": 0.88}
    rows = results("bsnn_table/*-best-*")
    assert len({(row["dataset"], row["form"]) for row in rows}) == 6 * len(least)
    for row in rows:
        assert row["held_out"] >= least[row["dataset"]] and row["epochs"] <= 15
        assert max(row["largest_over_smallest_norm"].values()) < 3
    fits = {r["form"] for r in rows if r["dataset"] == "mnist" and r["train"] >= 0.995}
    assert len(fits) == 6, "train accuracy on MNIST"


def test_no_step_leaves_an_error_above_1e_5():
    rows = record("orthogonality")
    assert {row["depth"] for row in rows} == {10, 50, 200, 1000, 10_000}
    assert {row["units"] for row in rows} == {32, 64, 128, 256, 1024}
    assert all(row["steps"] == 2000 for row in rows)
    assert max(row["largest_error"] for row in rows) < 1e-5


def record(name):
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(path.read_text())["result"]


def test_what_is_said_of_a_gpu():
    def of(name):
        return record(f"gpu/{name}")

    checks = of("correctness")
    assert all(row["is_right"] for row in checks)
    of_steps = [r["largest"] for r in checks if "any step" in r["check"]]
    assert len(of_steps) == 8 and max(of_steps) < 7e-7
    of_matrices = [r["largest"] for r in checks if r["precision"] == "bfloat16"]
    assert max(of_matrices) < 5e-6
    assert max(r["largest"] for r in checks if "CPU" in r["check"]) < 1e-5
    for depth, *expected in (
        (1000, 7.2, 20.5, 7.6, 16.2),
        (10_000, 6.1, 19.9),
        (100, 20.4, 22.9, 9.9, 15.5),
    ):
        rows = [r for r in of("depth") if r["depth"] == depth]
        found = [round(r["step_microseconds_per_layer"], 1) for r in rows]
        assert found[: len(expected)] == expected
    rows = [r for r in of("depth") if r["units"] == 1024]
    steps = [r["step_microseconds_per_layer"] for r in rows]
    assert list(map(round, steps)) == [184, 223, 139]
    (floor, *_) = of("floor")
    assert round(floor["square_per_second"] / 1e12) == 298
    assert round(rows[0]["step_seconds"] / floor["operations_seconds"], 1) == 2.1
    ratios = [(r["contender"], round(r["ratio"], 2)) for r in of("recipe")]
    of_muon = [ratio for name, ratio in ratios if name == "StiefelMuon, JAX"]
    assert of_muon == [1.13, 1.11]
    assert ("SGD, tangent gradient, JAX", 1.69) in ratios
    steps = [float(f"{1e3 * r['step_seconds']:.3g}") for r in of("recurrent")]
    assert steps == [14.6, 18.5, 11.8, 35.5, 125, 222, 132, 45.2]
    names = ("correctness", "depth", "floor", "recipe", "recurrent")
    assert {r["device"] for name in names for r in of(name)} == {"NVIDIA H200"}


def results(pattern):
    """What the result files of a pattern say."""
    paths = (ROOT / "examples" / "results").glob(pattern)
    return [json.loads(path.read_text())["result"] for path in paths]


def test_what_is_said_of_learning_rates():
    """How far the best one moves with depth, and what 0.1 loses at any width."""
    (points,) = results("bsnn_transfer.json")

    def best(optimizer, **network):
        key = {"optimizer": optimizer, **network}
        curve = [p for p in points if key.items() <= p.items()]
        return min(curve, key=lambda p: float(p["loss"]))["learning_rate"]

    depths, widths = (10, 100, 1000, 10_000), (64, 256, 1024)
    sgd = [best("SGD", depth=d, width=32) for d in depths]
    muon = [best("StiefelMuon", depth=d, width=32) for d in depths]
    assert max(sgd) / min(sgd) == pytest.approx(100, rel=0.1) and len(set(muon)) == 1
    for width in widths:
        key = {"optimizer": "StiefelMuon", "depth": 10, "width": width}
        losses = {
            p["learning_rate"]: p["loss"] for p in points if key.items() <= p.items()
        }
        assert losses[0.1] < 1.04 * min(losses.values())


def test_what_is_said_of_the_period():
    """Nothing is lost: means over the seeds differ by less than their range."""
    (rows,) = results("bsnn_optimizers.json")

    def mean(name):
        found = [
            r for r in rows if r["optimizer"] == name and r["learning_rate"] == 0.1
        ]
        assert len(found) == 3
        return sum(r["accuracy"] for r in found) / 3

    ours = mean("StiefelMuon")
    assert abs(ours - mean("StiefelMuon, all kernels in each step")) < 0.001
    assert abs(ours - mean("StiefelMuon, one in each step")) < 0.001
    assert ours - mean("divided by the operator norm") > 0.001


def test_what_is_said_of_batch_normalization_in_evaluation():
    least = {
        ("mnist", "identity", 1000): 0.90,
        ("fashion_mnist", "identity", 1000): 0.80,
        ("mnist", "tanh", 1000): 0.975,
        ("mnist", "sin", 1000): 0.975,
        ("mnist", "tanh", 10_000): 0.95,
        ("mnist", "relu", 100): 0.95,
        ("mnist", "relu", 1000): 0.95,
    }
    rows = results("batchnorm_table/*")
    for key, value in least.items():
        found = [r for r in rows if (r["dataset"], r["row"], r["depth"]) == key]
        best = max(found, key=lambda row: row["recalibrated"])
        assert best["recalibrated"] >= value, key
        assert best["epochs"] <= 30 or best["seconds"] < 40 * 60
    assert all(r["recalibrated"] > r["batch statistics"] - 0.01 for r in rows)


def test_what_is_said_of_choices_for_batch_normalization():
    rows = results("batchnorm_validation/*")
    assert len(rows) == 6 and all(row["validation"] for row in rows)
    for row in rows:
        assert f"{100 * row['recalibrated']:.2f}" in PAGES["batchnorm"]


def test_what_is_said_of_gradients_with_batch_normalization():
    (points,) = results("batchnorm_gradients.json")

    def mean(row, depth):
        key = {"row": row, "depth": depth}
        found = [float(p["log_gradient"]) for p in points if key.items() <= p.items()]
        return sum(found) / len(found)

    paper = {5: 0.30, 50: 0.35, 100: 0.38, 200: 0.41, 500: 0.38, 1000: 0.39}
    for depth, value in paper.items():
        assert abs(mean("orthogonal", depth) - value) < 0.15
        assert mean("orthogonal, mean-free", depth) < 1
    assert mean("orthogonal, mean-free", 100_000) < 1
    assert mean("Gaussian kernels", 1000) > 8
    for row, slope in (("tanh, no gain", 0.085), ("sin, no gain", 0.134)):
        growth = (mean(row, 500) - mean(row, 100)) / 400
        assert growth == pytest.approx(slope, rel=0.1)
    for row in ("tanh, gain", "sin, gain"):
        assert abs(mean(row, 1000) - mean(row, 50)) < 0.6
    for share in (50, 80):
        assert mean(f"{share} repeated, shrinkage 0.9", 1000) < 2


def test_what_is_said_of_a_million_layers():
    (found,) = results("million_layers/result.json")
    before, after = found["before"], found["after"]
    assert found["parameters"] > 10**6 * 16**2 and len(found["losses"]) == 200
    assert np.mean(found["losses"][-10:]) < 0.2 * np.mean(found["losses"][:10])
    said = (
        f"{100 * before['test_accuracy']:.1f} to {100 * after['test_accuracy']:.1f} %",
        f"factor of {before['gradient_max_over_min']:.0f}",
        f"and of {after['gradient_max_over_min']:.1f} after",
        f"{found['seconds_per_step']:.1f} s a step",
        f"{found['peak_gigabytes']} GB",
    )
    text = words(PAGES["roaf"])
    for part in said:
        assert part in text


def test_what_is_said_of_fifty_thousand_layers():
    rows = {found["row"]: found for found in results("roaf_mlp/*.json")}
    assert {row["depth"] for row in rows.values()} == {50_000}
    haar, identity, plain = (rows[name] for name in ("haar", "identity", "plain"))
    accuracies = [point["accuracy"] for point in haar["curve"]]
    assert accuracies[-1] > 0.975 and max(accuracies[:4]) > 0.97
    assert sum(point["seconds"] for point in haar["curve"]) < 3600
    assert plain["curve"][-1]["accuracy"] < 0.12
    epochs = len(identity["curve"])
    behind = accuracies[epochs - 1] - identity["curve"][-1]["accuracy"]
    assert epochs == 2 and 0 < behind < 0.005
    for row in (haar, identity):
        for when in ("before", "after"):
            low, high = map(float, row[when]["bounds"])
            assert low < row[when]["first_over_last"] < high
    assert 1 / haar["before"]["first_over_last"] == pytest.approx(20, abs=1)
    assert 1 / haar["after"]["first_over_last"] == pytest.approx(9, abs=1)


def test_what_is_said_of_adding():
    (rows,) = results("roaf_adding.json")
    of = {row["network"]: row for row in rows}
    assert {row["length"] for row in rows} == {10_000}
    assert of["ROAF"]["loss"] < 1e-3
    point = next(p for p in of["ROAF"]["curve"] if float(p["loss"]) < 1e-3)
    assert point["seconds"] < 300
    for name in ("LSTM", "SimpleRNN"):
        assert of[name]["loss"] == pytest.approx(1 / 6, rel=0.1)
        assert of[name]["units"] == of["ROAF"]["units"]


def test_what_is_said_of_copying():
    (rows,) = results("roaf_copy.json")
    of = {row["network"]: row for row in rows}
    assert {row["length"] for row in rows} == {10_000}
    assert of["ROAF"]["loss"] < of["ROAF"]["memoryless"] / 40
    for row in rows[1:]:
        assert row["loss"] > row["memoryless"] and row["units"] == rows[0]["units"]
        share = 10 / 10_020  # of the symbols
        blind = share * np.log(8 / share) - (1 - share) * np.log(1 - share)
        assert row["loss"] == pytest.approx(blind, rel=0.1)


def test_what_is_said_of_permuted_images():
    rows = {(r["network"], r["units"]): r for r in results("roaf_psmnist/*_0.json")}
    curves = {key: [p["accuracy"] for p in row["curve"]] for key, row in rows.items()}
    for units in (64, 128, 256, 512):
        assert len(curves["ROAF", units]) == 10
    for units in (256, 512):
        first, *_, last = curves["ROAF", units]
        assert first > 0.95 and last == pytest.approx(0.984, abs=5e-4)
    lost = curves["ROAF", 512][-1] - curves["ROAF", 64][-1]
    assert lost == pytest.approx(0.013, abs=5e-4)
    for name in ("LSTM", "GRU"):
        assert len(curves[name, 256]) == 4 and curves[name, 256][-1] < 0.95


def test_what_is_said_of_the_monitor():
    for path in (ROOT / "benchmarks" / "results").glob("monitor_*.json"):
        found = json.loads(path.read_text())["result"]
        epoch, further = (np.median(found[k][1:]) for k in ("epochs", "measurements"))
        assert further < 0.05 * epoch
        assert f"| {further:.2f} s | {further / epoch:.1%} |" in PAGES["signals"]


def test_what_is_said_of_recurrent_layers():
    path = ROOT / "benchmarks" / "results" / "recurrent.json"
    rows = json.loads(path.read_text())["result"]
    for steps in (784, 10_000):
        of = {r["contender"]: r["step_seconds"] for r in rows if r["depth"] == steps}
        for backend in ("TensorFlow XLA", "JAX"):
            haar, shift = of[f"ROAF, {backend}"], of[f"ROAF, shift, {backend}"]
            assert shift < haar < 0.8 * of["jax.lax.scan by hand"]
            assert haar < 0.5 * of[f"keras LSTM, {backend}"]
            assert shift < of[f"keras SimpleRNN, {backend}"]
            assert haar < 1.07 * of[f"keras SimpleRNN, {backend}"]


def test_the_table_of_folded_networks():
    for path in (ROOT / "benchmarks" / "results").glob("fold_*.json"):
        found = json.loads(path.read_text())["result"]
        assert found["largest_difference"] < 1e-4
        assert max(row["ratio"] for row in found["per_example"]) > 500
        for row in found["per_example"]:
            assert (
                f"| {row['deep']:,g} µs | {row['folded']:,g} µs |" in PAGES["batchnorm"]
            )


def test_what_is_said_of_exported_models():
    rows = json.loads((ROOT / "benchmarks/results/export.json").read_text())["result"]
    for row in rows:
        forms = [row[form] for form in ("as it is", "to_keras") if form in row]
        assert max(form["of_probabilities"] for form in forms) < 1e-4
        limit = 4e-4 if row["family"] == "BSNN, gp_tanh" else 1e-4
        assert max(form["largest_difference"] for form in forms) < limit


def test_what_is_said_of_operations_on_weights():
    paths = (ROOT / "benchmarks" / "results").glob("weights_*.json")
    rows = [row for path in paths for row in json.loads(path.read_text())["result"]]
    held = sum("number" in row for row in rows)
    assert f"{held:,} of {len(rows):,} held" in PAGES["weights"]


def test_what_is_said_of_several_processes():
    path = ROOT / "benchmarks" / "results" / "throughput.json"
    rows = json.loads(path.read_text())["result"]
    assert {(r["processes"], r["devices"]) for r in rows} >= {(2, 1), (4, 1), (1, 4)}
    for row in rows:
        assert row["largest_difference"] < 1e-5
        assert row["orthogonality_error"] < 1e-4
        if row["strategy"] == "depth":
            share = 1 / (row["processes"] * row["devices"])
            whole = next(r for r in rows if r["strategy"] == "depth")
            for name in ("megabytes_kept", "megabytes_of_step"):
                assert row[name] < 1.1 * share * whole[name]
    one, two = (r["samples_per_second"] for r in rows if r["batch_size"] == 720)
    assert two > one
    slow, fast = (r for r in rows if r["strategy"] == "depth" and r["processes"] == 2)
    assert fast["checkpoint_every"] == 25
    assert fast["samples_per_second"] > 5 * slow["samples_per_second"]
    assert fast["megabytes_of_step"] < slow["megabytes_of_step"]


def test_what_is_said_of_versions():
    """On TensorFlow all uses pass; elsewhere all but the file that it writes."""
    paths = sorted((ROOT / "benchmarks" / "results" / "versions").glob("*.json"))
    files = [json.loads(path.read_text()) for path in paths]
    rows = {(f["result"]["environment"], f["backend"]): f for f in files}
    environments = ("oldest", "notebook", "newest")
    assert rows.keys() >= {(e, b) for e in environments for b in ("tensorflow", "jax")}
    for file in files:
        errors = file["result"]["errors"]
        failing = {name for name, error in errors.items() if error}
        is_alone = "tensorflow" not in file["versions"]
        assert failing == ({"export to a SavedModel"} if is_alone else set())
        assert all(f"- {name}\n" in PAGES["versions"] for name in errors)
    oldest, jax = (rows["oldest", b]["versions"] for b in ("tensorflow", "jax"))
    pythons = {file["versions"]["python"].rpartition(".")[0] for file in files}
    assert {"3.10", "3.13"} <= pythons and oldest["keras"] == "3.10.0"
    assert oldest["tensorflow"].startswith("2.17") and jax["jax"].startswith("0.7")
    for text in (README, PAGES["versions"]):
        assert "Python 3.10 to 3.13" in text and "Keras 3.10 or newer" in text
