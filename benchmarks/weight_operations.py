r"""What Keras does to a weight, under each optimizer, precision and strategy.

    python benchmarks/weight_operations.py --all --ways TensorFlow \
        --out benchmarks/results/weights_tensorflow.json
    python benchmarks/weight_operations.py --all --ways XLA \
        --out benchmarks/results/weights_xla.json
    python benchmarks/weight_operations.py --all --ways "two replicas" \
        --out benchmarks/results/weights_mirrored.json
    KERAS_BACKEND=jax python benchmarks/weight_operations.py --all \
        --out benchmarks/results/weights_jax.json
    python benchmarks/weight_operations.py --from benchmarks/results/weights_*.json \
        --readme README.md

The checks are those of the tests, in `tests/weight_checks.py`; here they run under all
settings of its `grid`. What does not hold is in the record, and in the table.
"""

import argparse
import collections
import os
import sys
import tempfile
import time
from pathlib import Path

import _table
import keras

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from weight_checks import OPERATIONS, OPTIMIZERS, grid, run

WAYS = {
    "TensorFlow": {"backend": "tensorflow", "jit": False, "replicas": 1},
    "XLA": {"backend": "tensorflow", "jit": True, "replicas": 1},
    "two replicas": {"backend": "tensorflow", "jit": False, "replicas": 2},
    "JAX": {"backend": "jax", "jit": True, "replicas": 1},
    "two devices": {"backend": "jax", "jit": True, "replicas": 2},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--all", action="store_true", help="each operation under all settings")
    add("--operations", nargs="+", choices=OPERATIONS, default=[*OPERATIONS])
    add("--ways", nargs="+", choices=WAYS, default=[*WAYS], help="columns of the table")
    add("--go-on", action="store_true", help="keep what held in --out")
    _table.add_arguments(parser)
    _table.present("weight_operations.py", measure, table, parser.parse_args())


def measure(args):
    two_devices()
    rows = [row for row in _table.kept(args) if "number" in row]
    done = [{k: v for k, v in row.items() if k not in OUTCOME} for row in rows]
    for name, setting in grid(args.all):
        row = {"operation": name, **setting._asdict()}
        is_wanted = name in args.operations and way_of(row) in args.ways
        if row in done or not is_wanted:
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows.append({**row, **run(name, setting, Path(folder))})
        print(f"{time.perf_counter() - start:.1f} s", *rows[-1].values(), flush=True)
        keras.backend.clear_session()
        _table.write(args.out, {"result": rows})
    return {"result": rows}


OUTCOME = ("number", "error", "in_keras")


def two_devices():
    """Makes them of one CPU, before anything is computed."""
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=2"  # on JAX
        " --xla_llvm_disable_expensive_passes=true"  # much is compiled, little is run
    )
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        pair = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, pair)


def table(records):
    """A row for each optimizer that trains, and for each operation; columns for `WAYS`.

    A cell has the number of settings, and the largest error or difference.
    """
    cells = collections.defaultdict(list)
    for record in records:
        for row in record["result"]:
            cells[label(row), way_of(row, record["backend"])].append(row)
    lines = []
    names = [f"training, {optimizer}" for optimizer in OPTIMIZERS]
    for name in [*names, *(name for name in OPERATIONS if name != "training")]:
        lines.append([name, *(cell(cells[name, way]) for way in WAYS)])
    return _table.markdown(["", *WAYS], lines)


def way_of(row, backend=None):
    """Of `WAYS`; the backend is this one if no other is named."""
    found = {"backend": backend or keras.backend.backend(), **row}.items()
    return next(name for name, way in WAYS.items() if way.items() <= found)


def label(row):
    is_training = row["operation"] == "training"
    return f"training, {row['optimizer']}" if is_training else row["operation"]


def cell(rows):
    """For instance `7: 2e-07`, or `6 of 8, 1 not in Keras: 2e-07`."""
    if not rows:
        return ""
    numbers = [row["number"] for row in rows if "number" in row]
    without = sum(row.get("in_keras", False) for row in rows)
    held = str(len(numbers))
    if len(numbers) < len(rows):
        held += f" of {len(rows)}" + (f", {without} not in Keras" if without else "")
    if numbers:
        held += f": {max(numbers):.0e}" if max(numbers) else ": 0"
    return held


if __name__ == "__main__":
    main()
