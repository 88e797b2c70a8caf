"""What the page says of models of keras-hub with loops is true."""

import sys

import pytest
from scripts import ROOT, result

sys.path.append(str(ROOT / "benchmarks"))
import stacking

FOLDER = ROOT / "benchmarks" / "results"
BACKENDS = ("tensorflow", "jax")
KEPT = "deit"  # of the backbones, the one that is not stacked


def rows(backend):
    """The medians over the rounds of each case."""
    found = {}
    for row in result(FOLDER / "stacking" / f"{backend}.json"):
        case = row["model"], row["layers"], row["form"]
        found.setdefault(case, []).append(row)
    return {case: stacking.median(rounds) for case, rounds in found.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_said_of_time(backend):
    of = rows(backend)
    few, many = (of["gpt2", layers, "stacked"] for layers in (12, 48))
    assert many["compile_seconds"] < 1.15 * few["compile_seconds"]
    largest = {"jax": 1.15, "tensorflow": 1.4}[backend]  # with the layers to build
    assert many["first_step_seconds"] < largest * few["first_step_seconds"]
    plain = of["gpt2", 48, "plain"]
    assert plain.get("first_step_seconds", plain["limit"]) > (
        4 * many["first_step_seconds"]
    )
    for layers in (12, 24, 48):
        forms = [of["gpt2", layers, form] for form in ("plain", "stacked")]
        if "failed" not in forms[0]:
            assert forms[1]["step_seconds"] < 1.05 * forms[0]["step_seconds"]
            used = [f["peak_memory_bytes"] - f["memory_before_bytes"] for f in forms]
            assert used[1] < used[0]
        assert forms[1]["largest_difference"] < 1e-5
    for layers in (12, 48, 1000):
        row = of["block", layers, "stacked"]
        assert row["build_seconds"] < row["compile_seconds"]
        assert row["first_step_seconds"] < 12


def test_what_is_said_of_backbones():
    found = result(FOLDER / "stacked_backbones" / "jax.json")
    assert len(found) == 22
    for row in found:
        has_loop = any("equal parts" in line for line in row["report"])
        assert has_loop == (row["model"] != KEPT)
        assert row["relative_difference"] < 1e-5 and row["unstacked_difference"] < 1e-5
