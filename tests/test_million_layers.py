"""The example of a million layers, with a thousand."""

import pytest
from scripts import ROOT, result, runner

pytestmark = pytest.mark.slow


def test_it_trains_and_shows_its_gradients(tmp_path, monkeypatch):
    run = runner(ROOT / "examples", monkeypatch)
    small = ["--depth", 1000, "--steps", 60, "--learning-rate", 0.003]
    run("million_layers.py", *small, "--out", tmp_path)
    found = result(tmp_path / "result.json")
    assert len(found["losses"]) == 60
    assert found["losses"][-1] < 0.7 * found["losses"][0]
    assert found["after"]["test_accuracy"] > found["before"]["test_accuracy"] + 0.2
    for when in ("before", "after"):
        assert found[when]["gradient_max_over_min"] < 100
        assert len(found[when]["gradients"]) == 1000
    assert (tmp_path / "million_layers.png").stat().st_size > 10_000
