"""What folding saves: a linear network of many layers, and the one layer it folds into.

    python benchmarks/fold.py --out benchmarks/results/fold.json

Both predict the same batch in turn, in one process, as `predict_on_batch` compiles it.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_bsnn import export, models
from keras_bsnn._record import environment
from keras_bsnn.recalibration import recalibrate


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--depth", type=int, default=1000)
    add("--units", type=int, default=100)
    add("--inputs", type=int, default=784)
    add("--batch-size", type=int, default=10_000)
    add("--rounds", type=int, default=20)
    add("--out", type=Path)
    args = parser.parse_args()
    result = measure(args)
    show(result)
    if args.out:
        record = {**environment(), "settings": vars(args), "result": result}
        args.out.write_text(json.dumps(record, indent=1, default=str) + "\n")


def measure(args):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(args.batch_size, args.inputs))
    x = keras.ops.convert_to_tensor(x.astype("float32"))
    deep = models.batchnorm_mlp(
        args.depth, args.units, None, input_shape=(args.inputs,), seed=0
    )
    recalibrate(deep, x[:1000])
    start = time.perf_counter()
    folded = export.fold(deep)
    fold_seconds = time.perf_counter() - start
    networks = {"deep": deep, "folded": folded}
    times = {name: [] for name in networks}
    for network in networks.values():
        network.compile(jit_compile=True)
        network.predict_on_batch(x)  # compiles
    for _ in range(args.rounds):
        for name, network in networks.items():
            times[name].append(seconds(network, x))
    median = {name: float(np.median(t)) for name, t in times.items()}
    ratios = np.divide(times["deep"], times["folded"])
    found, expected = (n.predict_on_batch(x) for n in (folded, deep))
    return {
        "fold_seconds": round(fold_seconds, 2),
        "microseconds_per_example": {
            name: float(f"{1e6 * t / args.batch_size:.3g}")
            for name, t in median.items()
        },
        "ratio": round(float(np.median(ratios))),
        "ratio_spread": [round(float(np.quantile(ratios, q))) for q in (0.25, 0.75)],
        "largest_difference": float(f"{np.max(np.abs(found - expected)):.2g}"),
        "largest_logit": float(f"{np.max(np.abs(expected)):.3g}"),
        "layers": [type(layer).__name__ for layer in folded.layers],
    }


def seconds(network, x):
    start = time.perf_counter()
    network.predict_on_batch(x)
    return time.perf_counter() - start


def show(result):
    table = Table("", "", title="A linear network and its fold")
    for name, value in result.items():
        table.add_row(name, str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
