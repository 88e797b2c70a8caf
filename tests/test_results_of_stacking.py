"""What the page says of models of keras-hub with loops is true."""

import pytest
from scripts import ROOT, result

FOLDER = ROOT / "benchmarks" / "results"
BACKENDS = ("tensorflow", "jax")
KEPT = "deit"  # of the backbones, the one that is not stacked


def rows(backend):
    found = result(FOLDER / "stacking" / f"{backend}.json")
    return {(row["model"], row["layers"], row["form"]): row for row in found}


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_said_of_time(backend):
    of = rows(backend)
    few, many = (of["gpt2", layers, "stacked"] for layers in (12, 48))
    assert many["first_step_seconds"] < 1.15 * few["first_step_seconds"]
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
    assert of["block", 1000, "stacked"]["first_step_seconds"] < 120


def test_what_is_said_of_backbones():
    found = result(FOLDER / "stacked_backbones" / "jax.json")
    assert len(found) == 22
    for row in found:
        has_loop = any("equal parts" in line for line in row["report"])
        assert has_loop == (row["model"] != KEPT)
        assert row["relative_difference"] < 1e-5 and row["unstacked_difference"] < 1e-5
