"""What the pages say of the speed and the singular values of convolutions is true."""

from scripts import ROOT, result

OURS = "ortho", "mnist"
# Of checks on a GPU, by a part of their names.
BOUNDS = {"as products": 2e-6, "against the CPU": 8e-6, "singular values": 4e-7}


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
        for mode in ("TensorFlow", "TensorFlow XLA", "JAX"):
            assert steps[f"ours, {mode}"] < 0.5 * steps[name]
    assert all(of[f"ours, {m}"]["largest_error"] < 1e-5 for m in ("TensorFlow", "JAX"))


def test_what_is_said_of_compiling_stacks_of_convolutions():
    rows = record("convolution_depth")
    seconds = {(r["contender"], r["depth"]): r["compile_seconds"] for r in rows}
    for name in ("ours, TensorFlow XLA", "ours, JAX"):
        assert seconds[name, 10_000] < 1.5 * seconds[name, 100]
    steps = {r["contender"]: r["step_seconds"] for r in rows if r["depth"] == 1000}
    huge = [f"ours, {mode}" for mode in ("TensorFlow XLA", "JAX")]
    shares = [round(steps[f"{name}, huge pages"] / steps[name], 2) for name in huge]
    assert shares == [0.91, 0.98]


def test_what_is_said_of_deep_convolutions():
    folder = ROOT / "examples" / "results" / "deep_cnn"
    rows = [result(path) for path in sorted(folder.glob("*.json"))]
    last = {}
    for row in rows:
        key = row["construction"][:5], row["dataset"], row["depth"]
        last.setdefault(key, []).append(row["curve"][-1]["accuracy"])
        if key[0] == "ortho":
            gradients = [float(g) for g in row["norms"]["gradient"]]
            assert max(gradients) < 1.6 * min(gradients)
            assert row["singular_values"] == [1.0, 1.0]
    assert [len(last["ortho", "mnist", d]) for d in (10, 100, 10_000)] == [3, 3, 1]
    assert min(min(a) for (c, s, _), a in last.items() if (c, s) == OURS) >= 0.988
    assert min(last["ortho", "mnist", 10_000]) >= 0.985
    assert max(last["ortho", "mnist", 1000]) >= 0.99
    assert min(last["ortho", "fashion_mnist", 1000]) >= 0.9


def test_what_is_said_of_convolutions_on_a_gpu():
    checks = record("gpu/convolutions/correctness")
    assert len(checks) == 7 and all(row["is_right"] for row in checks)
    of = {name: [r["largest"] for r in checks if name in r["check"]] for name in BOUNDS}
    for name, bound in BOUNDS.items():
        assert max(of[name]) < bound
    rows = record("gpu/convolutions/convolution_depth")
    assert {row["device"] for row in checks + rows} == {"NVIDIA H200"}
    steps = {
        (r["contender"], r["depth"], r["channels"]): r["step_microseconds_per_layer"]
        for r in rows
    }
    found = [
        [round(t, 1) for (_, *size), t in steps.items() if size == [depth, channels]]
        for depth, channels in ((1000, 32), (1000, 64), (10_000, 32))
    ]
    assert found == [
        [29.8, 29.4, 101.7, 68.5, 91.8],
        [41.6, 41.4, 83.6, 83.4, 105.5],
        [27.9, 108.6],
    ]
    ours = [row for row in rows if row["contender"] == "ours, JAX"]
    assert all(7 < row["floor_ratio"] < 10 for row in ours)
    memory = [round(r["peak_memory_bytes"] / 1e9) for r in rows if r["depth"] > 1000]
    assert memory == [21, 49]
    assert round(ours[-1]["compile_seconds"], 1) == 5.2
