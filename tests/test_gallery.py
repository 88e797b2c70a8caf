"""`examples/gallery.py`, in small."""

import pytest
from scripts import ROOT, runner

pytestmark = pytest.mark.slow


def test_all_pictures_are_drawn(tmp_path, monkeypatch):
    run = runner(ROOT / "examples", monkeypatch)
    run("gallery.py", "--depth", 4, "--epochs", 2, "--out", tmp_path / "new")
    names = {path.stem for path in (tmp_path / "new").glob("*.png")}
    assert names == {"length_map", "kernel_map", "singular_values", "heat_map"}
