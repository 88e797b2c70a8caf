"""The scripts on additive filters, small: they do what they say, and go on."""

import importlib

import keras
import numpy as np
import pytest
from scripts import REPRODUCE, result, runner

pytestmark = pytest.mark.slow


@pytest.fixture
def run(monkeypatch):
    return runner(REPRODUCE, monkeypatch)


@pytest.fixture
def recurrent(monkeypatch):
    monkeypatch.syspath_prepend(REPRODUCE)
    return importlib.import_module("_recurrent")


def rows_of(found):
    return {row["network"]: row for row in found}


def test_adding(tmp_path, run, capsys):
    out, figure = tmp_path / "adding.json", tmp_path / "adding.png"
    small = ["--length", 100, "--units", 32, "--out", out, "--figure", figure]
    run("roaf_adding.py", *small, "--steps", 300, "--networks", "ROAF")
    first = result(out)
    run("roaf_adding.py", *small, "--steps", 20, "--networks", "ROAF", "SimpleRNN")
    rows = rows_of(result(out))
    assert result(out)[:1] == first, "what was there is kept"
    assert rows["ROAF"]["steps"] == 300 and rows["SimpleRNN"]["steps"] == 20
    assert rows["ROAF"]["loss"] < 0.1 * rows["ROAF"]["memoryless"]
    assert rows["SimpleRNN"]["loss"] > 0.3 * rows["SimpleRNN"]["memoryless"]
    for row in rows.values():
        steps = [point["step"] for point in row["curve"]]
        assert steps[-1] == row["steps"] and len(steps) == min(50, row["steps"])
    assert figure.stat().st_size > 5000
    assert "without memory" in capsys.readouterr().out


def test_copy(tmp_path, run):
    out, figure = tmp_path / "copy.json", tmp_path / "copy.png"
    small = ["--length", 20, "--units", 64, "--batch-size", 32, "--steps", 200]
    run("roaf_copy.py", *small, "--networks", "ROAF", "--out", out, "--figure", figure)
    (row,) = result(out)
    assert row["memoryless"] == pytest.approx(10 * np.log(8) / 40, rel=1e-2)
    assert row["loss"] < 0.3 * row["memoryless"]


def test_the_budget_ends_and_sets_the_rate(recurrent):
    """By its steps, or by its seconds."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    rates = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: rates.append(
            float(model.optimizer.learning_rate)
        )
    )
    x = np.zeros((64, 1))
    budget = recurrent.Budget(0.5, steps=40, seconds=1000)
    model.fit(x[:40], x[:40], batch_size=1, verbose=0, callbacks=[budget, spy])
    assert budget.step == 40 and max(rates) == pytest.approx(0.5)
    assert rates[0] == pytest.approx(0.25) and rates[-1] == pytest.approx(0, abs=1e-6)
    assert np.all(np.diff(rates[1:]) < 1e-9)
    budget = recurrent.Budget(0.5, steps=10**6, seconds=1e-9)
    model.fit(x, x, batch_size=1, verbose=0, callbacks=[budget])
    assert budget.step <= 2


@pytest.mark.parametrize(
    ("script", "arguments", "stem", "least"),
    [
        (
            "roaf_mlp.py",
            ["--rows", "haar", "--depth", 100, "--width", 16],
            "haar_100_0",
            0.85,
        ),
        (
            "roaf_psmnist.py",
            ["--networks", "ROAF", "--units", 32, "--readout", 64],
            "ROAF_32_0",
            0.7,
        ),
    ],
)
def test_a_row_goes_on_as_if_it_had_not_ended(
    script, arguments, stem, least, tmp_path, run
):
    """The schedule and the optimizer too: the second half is that of a whole run."""
    small = ["--dataset", "digits", "--batch-size", 16, *arguments]

    def train(place, *more):
        places = ["--out", place, "--checkpoints", place, "--figure", place / "f.png"]
        run(script, *small, *places, "--epochs", 2, *more)
        return result(place / f"{stem}.json")

    broken, whole = tmp_path / "broken", tmp_path / "whole"
    assert len(train(broken, "--stop-after", 1)["curve"]) == 1
    found = train(broken)
    expected = train(whole)
    assert len(found["curve"]) == len(expected["curve"]) == 2
    assert found["curve"][-1]["accuracy"] > least
    assert found["curve"][1]["loss"] == pytest.approx(
        expected["curve"][1]["loss"], rel=0.2
    )
    assert (broken / "f.png").stat().st_size > 5000


def test_plain_layers_do_not_carry_what_filters_carry(tmp_path, run):
    places = ["--out", tmp_path, "--checkpoints", tmp_path]
    small = ["--dataset", "digits", "--depth", 400, "--width", 16]
    rows = ["--rows", "shift", "plain", "--epochs", 1]
    run("roaf_mlp.py", *small, *rows, *places, "--figure", tmp_path / "figure.png")
    shift, plain = (result(tmp_path / f"{r}_400_0.json") for r in ("shift", "plain"))
    low, high = shift["before"]["bounds"]
    assert low < shift["before"]["first_over_last"] < high
    assert shift["before"]["first_over_last"] == pytest.approx(np.exp(-3), rel=0.3)
    ratio = plain["before"]["first_over_last"]
    assert ratio < 1e-6
