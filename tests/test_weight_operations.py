"""A few of the settings that `benchmarks/weight_operations.py` tries, and its table."""

import json
import runpy

import keras
import pytest
from backends import IS_TORCH
from scripts import ROOT
from weight_checks import (
    OPERATIONS,
    Setting,
    assert_orthogonal,
    check,
    compiled_with,
    fit,
    grid,
    is_tensorflow,
    largest_difference,
    network,
    run,
    values,
)

from keras_bsnn.optimizers import StiefelMuon

RECORDS = sorted((ROOT / "benchmarks" / "results").glob("weights_*.json"))
# JAX and PyTorch have one setting of the two only.
without_xla = pytest.mark.skipif(not is_tensorflow, reason="a setting of TensorFlow")


# They have tests of their own: test_backup.py, test_optimizers.py.
ELSEWHERE = {
    "BackupAndRestore, broken off",
    "checkpoint, whole model",
    "gradient accumulation",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in ELSEWHERE])
def test_what_keras_does_to_a_weight(name, tmp_path):
    check(name, Setting(), tmp_path)


@pytest.mark.slow
@without_xla
def test_the_same_with_xla(tmp_path):
    check("weight decay", Setting("StiefelMuon", jit=True), tmp_path)


@pytest.mark.slow
@without_xla
@pytest.mark.parametrize(
    "setting",
    [
        Setting("MultiOptimizer", "mixed_float16"),
        Setting("Stiefel(SGD)", "float64"),
        Setting("AdamW", "mixed_bfloat16", replicas=2),
    ],
    ids=lambda setting: f"{setting.optimizer}-{setting.precision}",
)
def test_other_settings(setting, tmp_path):
    check("training", setting, tmp_path)


@pytest.mark.slow
def test_each_part_has_its_optimizer():
    """A rate of zero for the stack keeps it where it is, and nothing else."""
    still = keras.optimizers.OptimizerMap(
        StiefelMuon(0.1), {".*depth_stack.*": keras.optimizers.SGD(0.0)}
    )
    model = network()
    compiled_with(model, Setting(), keras.optimizers.MultiOptimizer(still))
    before = values(model.trainable_variables)
    fit(model)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        moved = largest_difference(values([variable]), [value])
        # What the constraint changes of a kernel that is orthogonal is rounding.
        assert (moved < 1e-6) == ("depth_stack" in variable.path), variable.path
    assert_orthogonal(model)


@pytest.mark.skipif(IS_TORCH, reason="there is no record of PyTorch")
def test_the_records_have_all_settings():
    """Of this backend; what did not hold does not in Keras alone, either."""
    records = (json.loads(path.read_text()) for path in RECORDS)
    records = [r for r in records if r["backend"] == keras.backend.backend()]
    rows = [row for record in records for row in record["result"]]
    found = [(r["operation"], Setting(*(r[f] for f in Setting._fields))) for r in rows]
    assert len(found) == len({*found}) and {*found} == {*grid(everything=True)}
    assert all("number" in row or row["in_keras"] for row in rows)


def test_what_fails_shows(tmp_path, monkeypatch):
    """In the outcome that is recorded, and in the table."""
    outcome = run("training", Setting("no such optimizer"), tmp_path)
    assert outcome == {"error": "KeyError: 'no such optimizer'", "in_keras": True}
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = runpy.run_path(ROOT / "benchmarks" / "weight_operations.py")
    held, failed = {"number": 2e-7}, {"error": "ValueError: no", "in_keras": False}
    assert script["cell"]([held, held]) == "2: 2e-07"
    assert script["cell"]([held, failed]) == "1 of 2: 2e-07"
    assert script["cell"]([outcome, failed]) == "0 of 2, 1 not in Keras"
