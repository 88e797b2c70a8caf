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
        --page docs/results/weights.md

The checks are those of the tests, in `tests/weight_checks.py`; here they run under all
settings of its `grid`. What does not hold is in the record, and in the table; a second
call tries it again.
"""

import collections
import os
import sys
import tempfile
from pathlib import Path

import keras
from runner import Choice, Experiment, markdown

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import weight_checks
from weight_checks import OPERATIONS, OPTIMIZERS, Setting

WAYS = {
    "TensorFlow": {"backend": "tensorflow", "jit": False, "replicas": 1},
    "XLA": {"backend": "tensorflow", "jit": True, "replicas": 1},
    "two replicas": {"backend": "tensorflow", "jit": False, "replicas": 2},
    "JAX": {"backend": "jax", "jit": True, "replicas": 1},
    "two devices": {"backend": "jax", "jit": True, "replicas": 2},
}


def rows(args):
    two_devices()
    for name, setting in weight_checks.grid(args.all):
        row = {"operation": name, **setting._asdict()}
        way = way_of({"backend": keras.backend.backend(), **row})
        if name in args.operations and way in args.ways:
            yield row


def run(args, operation, **row):
    setting = Setting(*(row[name] for name in Setting._fields))
    keras.backend.clear_session()
    with tempfile.TemporaryDirectory() as folder:
        return weight_checks.run(operation, setting, Path(folder))


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
    for row in records:
        cells[label(row), way_of(row)].append(row)
    names = [f"training, {optimizer}" for optimizer in OPTIMIZERS]
    names += [name for name in OPERATIONS if name != "training"]
    lines = [[name, *(cell(cells[name, way]) for way in WAYS)] for name in names]
    return markdown(["", *WAYS], lines)


def way_of(row):
    return next(name for name, way in WAYS.items() if way.items() <= row.items())


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
    Experiment(
        __file__,
        run,
        table,
        rows,
        options={
            "all": False,  # each operation under all settings, not under a few
            "operations": Choice(OPERATIONS),
            "ways": Choice(WAYS),
        },
        record="weights_{backend}.json",
        is_done=lambda args, record: "number" in record,
    ).main()
