"""The table of `benchmarks/stacking.py`, from records; it is run in tests/hub."""

import json

from scripts import ROOT, runner, table_of

from keras_bsnn._record import environment


def record(layers, form, first, step, memory):
    return {
        **{"model": "gpt2", "layers": layers, "form": form, "limit": 900.0},
        **{"first_step_seconds": first, "step_seconds": step},
        **{"memory_before_bytes": 10, "peak_memory_bytes": 10 + memory * 10**7},
    }


def test_the_table_compares_depths_and_forms(tmp_path, monkeypatch):
    late = {"model": "gpt2", "layers": 48, "form": "plain", "limit": 900.0}
    rows = [
        record(12, "plain", 40.0, 0.3, 300),
        record(12, "stacked", 10.0, 0.1, 100),
        {**late, "failed": "more than 900 s"},
        record(48, "stacked", 11.0, 0.4, 120),
    ]
    whole = [*rows[:2], record(48, "plain", 110.0, 0.8, 400), rows[3]]
    whole += [record(48, "checkpoints", 12.0, 0.5, 100)]
    for backend, found in (("jax", whole), ("tensorflow", rows)):
        text = json.dumps({**environment(), "backend": backend, "result": found})
        (tmp_path / f"{backend}.json").write_text(text)
    page = tmp_path / "page.md"
    page.write_text("<!-- stacking.py: begin -->\n<!-- stacking.py: end -->")
    files = [tmp_path / f"{name}.json" for name in ("jax", "tensorflow")]
    run = runner(ROOT / "benchmarks", monkeypatch)
    run("stacking.py", "--from", *files, "--page", page)
    _, _, *lines = table_of(page)
    few = "| 40.0 s | 10.0 s | 4.00 | 300 ms | 100 ms | 0.33 |  | 3.00 | 1.00 |  |"
    many = "| > 900 s | 11.0 s | > 81.82 |  | 400 ms |  |  |  | 1.20 |  |"
    whole = "| 110.0 s | 11.0 s | 10.00 | 800 ms | 400 ms | 0.50 | 500 ms "
    assert lines == [
        f"| gpt2 | TensorFlow | 12 {few}",
        f"| gpt2 | TensorFlow | 48 {many}",
        f"| gpt2 | JAX | 12 {few}",
        f"| gpt2 | JAX | 48 {whole}| 4.00 | 1.20 | 1.00 |",
    ]
