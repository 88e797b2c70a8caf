"""What orthogonality costs: training steps with and without the constraint.

    python benchmarks/constraint.py --out benchmarks/results/constraint.json

All variants of a width are timed in turn, in one process, and reported as ratios to the
median step of the same network without a constraint.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_bsnn._record import environment
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.layers import OrthogonalDense

RETRACTIONS = (None, "newton_schulz", "cayley", "qr")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--units", type=int, nargs="+", default=[64, 128, 256, 512])
    add("--depth", type=int, default=10)
    add("--batch-size", type=int, default=64)
    add("--rounds", type=int, default=15)
    add("--jit", action=argparse.BooleanOptionalAction, default=False)
    add("--out", type=Path)
    args = parser.parse_args()
    rows = [row for units in args.units for row in measure(units, args)]
    show(rows)
    if args.out:
        record = {**environment(), "settings": vars(args), "result": rows}
        args.out.write_text(json.dumps(record, indent=1, default=str) + "\n")


def measure(units, args):
    x = np.random.default_rng(0).normal(size=(args.batch_size, units))
    models = {name: network(name, units, args) for name in RETRACTIONS}
    first = {name: seconds(model, x) for name, model in models.items()}
    times = {name: [] for name in models}
    for _ in range(args.rounds):
        for name, model in models.items():
            times[name].append(seconds(model, x))
    plain = np.median(times[None])
    return [
        {
            "units": units,
            "retraction": name or "none",
            "first_step_seconds": round(first[name], 2),
            "step_milliseconds": round(1e3 * float(np.median(t)), 2),
            "ratio": round(float(np.median(t) / plain), 2),
            "ratio_spread": [
                round(float(np.quantile(t, q) / plain), 2) for q in (0.25, 0.75)
            ],
        }
        for name, t in times.items()
    ]


def network(retraction, units, args):
    constraint = Orthogonal(retraction) if retraction else None
    layers = [
        OrthogonalDense(units, "gp_gelu", use_bias=False, kernel_constraint=constraint)
        for _ in range(args.depth)
    ]
    model = keras.Sequential([keras.Input((units,)), *layers])
    model.compile(keras.optimizers.SGD(1e-3, 0.9), "mse", jit_compile=args.jit)
    return model


def seconds(model, x):
    start = time.perf_counter()
    model.train_on_batch(x, np.zeros_like(x))
    return time.perf_counter() - start


def show(rows):
    table = Table(title="Training step, against none: median, and its quartiles")
    for column in (
        "units",
        "retraction",
        "first step, s",
        "step, ms",
        "ratio",
        "spread",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
