"""What the pages say of the speed and the singular values of convolutions is true."""

from scripts import ROOT, result


def record(name):
    return result(ROOT / "benchmarks" / "results" / f"{name}.json")


def test_what_is_said_of_singular_values_of_convolutions():
    for backend, count in (("tensorflow", 32), ("jax", 22)):  # JAX, no jit: 6 alone
        rows = record(f"convolution_orthogonality_{backend}")
        keys = ("layer", "optimizer", "policy", "jit")
        assert (
            len({tuple(row[key] for key in keys) for row in rows}) == len(rows) == count
        )
        for row in rows:
            assert row["steps"] == 200 and row["moved"] > 0.01
            assert max(row["before"], row["largest_error"]) < 1e-5


def test_what_is_said_of_a_step_of_a_convolution():
    of = {row["contender"]: row for row in record("convolution")}
    steps = {name: row["step_seconds"] for name, row in of.items()}
    ours = steps["ours, TensorFlow"]
    assert ours < 1.15 * steps["keras Conv2D, TensorFlow"]
    for mode in ("TensorFlow XLA", "JAX"):
        assert steps[f"ours, {mode}"] < steps[f"keras Conv2D, {mode}"]
    others = [name for name in of if name.startswith(("orthogonium", "torch param"))]
    assert len(others) == 3
    for name in others:
        assert ours < steps[name]
        for mode in ("TensorFlow XLA", "JAX"):
            assert steps[f"ours, {mode}"] < 0.5 * steps[name]
    assert all(of[f"ours, {m}"]["largest_error"] < 1e-5 for m in ("TensorFlow", "JAX"))


def test_what_is_said_of_compiling_stacks_of_convolutions():
    rows = record("convolution_depth")
    seconds = {(r["contender"], r["depth"]): r["compile_seconds"] for r in rows}
    for name in ("ours, TensorFlow XLA", "ours, JAX"):
        assert seconds[name, 10_000] < 1.5 * seconds[name, 100]
