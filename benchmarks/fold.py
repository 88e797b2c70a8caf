"""What folding saves: a linear network of many layers, and the one layer it folds into.

    python benchmarks/fold.py --out benchmarks/results/fold_tensorflow.json
    python benchmarks/fold.py --from benchmarks/results/fold_*.json --readme README.md

Both predict the same batch in turn, in one process, each compiled by XLA. The one layer
takes so little that for few samples what counts is the call itself, which costs less
with `KERAS_BACKEND=jax`.
"""

import argparse
import time

import _table
import keras
import numpy as np
from _latency import significant, times_per_sample

from keras_bsnn import export, models
from keras_bsnn.recalibration import recalibrate

BATCH_SIZES = (1, 10, 100, 1000, 3000, 10_000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--depth", type=int, default=1000)
    add("--units", type=int, default=100)
    add("--inputs", type=int, default=784)
    add("--batch-sizes", nargs="+", type=int, default=[*BATCH_SIZES])
    add("--rounds", type=int, default=7)
    _table.add_arguments(parser)
    _table.present("fold.py", measure, table, parser.parse_args())


def measure(args):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(max(args.batch_sizes), args.inputs))
    x = x.astype("float32")
    deep = models.batchnorm_mlp(
        args.depth, args.units, None, input_shape=(args.inputs,), seed=0
    )
    recalibrate(deep, x[:1000])
    start = time.perf_counter()
    folded = export.fold(deep)
    fold_seconds = time.perf_counter() - start
    found, expected = (n.predict(x, verbose=0) for n in (folded, deep))
    functions = {"deep": compiled(deep), "folded": compiled(folded)}
    result = {
        "fold_seconds": round(fold_seconds, 2),
        "largest_difference": significant(np.max(np.abs(found - expected))),
        "largest_logit": significant(np.max(np.abs(expected))),
        "layers": [type(layer).__name__ for layer in folded.layers],
        "per_example": [
            compare(functions, keras.ops.convert_to_tensor(x[:size]), args.rounds)
            for size in args.batch_sizes
        ],
    }
    settings = {"depth": args.depth, "units": args.units, "inputs": args.inputs}
    return {"settings": settings, "result": result}


def compiled(network):
    def predict(x):
        return network(x, training=False)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(predict, autograph=False, jit_compile=True)
    import jax

    return jax.jit(predict)


def compare(functions, x, rounds):
    """Medians, in microseconds, over rounds in which each function has its turn."""
    times = times_per_sample(functions, x, rounds)
    ratios = np.divide(times["deep"], times["folded"])
    return {
        "batch_size": len(x),
        **{name: significant(np.median(t)) for name, t in times.items()},
        "ratio": significant(np.median(ratios)),
        "quartiles": [significant(np.quantile(ratios, q)) for q in (0.25, 0.75)],
    }


def table(records):
    """A row for each batch size, with columns for the backend of each record."""
    heads = ["samples"]
    for record in records:
        heads += [f"{_table.BACKENDS[record['backend']]}, deep", "folded", "ratio"]
    lines = []
    for rows in zip(*(r["result"]["per_example"] for r in records), strict=True):
        cells = [f"{rows[0]['batch_size']:,}"]
        for row in rows:
            cells += [f"{row[k]:,g} µs" for k in ("deep", "folded")]
            cells += [f"{row['ratio']:,.0f}"]
        lines.append(cells)
    return _table.markdown(heads, lines, left=0)


if __name__ == "__main__":
    main()
