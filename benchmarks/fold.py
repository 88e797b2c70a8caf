"""What folding saves: a linear network of many layers, and the one layer it folds into.

    python benchmarks/fold.py
    KERAS_BACKEND=jax python benchmarks/fold.py --page docs/results/batchnorm.md

Both predict the same batch in turn, in one process, each compiled by XLA. The one layer
takes so little that for few samples what counts is the call itself, which costs less
with `KERAS_BACKEND=jax`.
"""

import time

import keras
import numpy as np
from _latency import times_per_sample
from runner import BACKENDS, Experiment, markdown, significant, tensorflow_first

from keras_bsnn import export, models
from keras_bsnn.recalibration import recalibrate


def run(args, depth, units, inputs):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(max(args.batch_sizes), inputs))
    x = x.astype("float32")
    deep = models.batchnorm_mlp(depth, units, None, input_shape=(inputs,), seed=0)
    recalibrate(deep, x[:1000])
    start = time.perf_counter()
    folded = export.fold(deep)
    fold_seconds = time.perf_counter() - start
    found, expected = (n.predict(x, verbose=0) for n in (folded, deep))
    functions = {"deep": compiled(deep), "folded": compiled(folded)}
    return {
        "fold_seconds": round(fold_seconds, 2),
        "largest_difference": significant(np.max(np.abs(found - expected))),
        "largest_logit": significant(np.max(np.abs(expected))),
        "layers": [type(layer).__name__ for layer in folded.layers],
        "per_example": [
            compare(functions, keras.ops.convert_to_tensor(x[:size]), args.rounds)
            for size in args.batch_sizes
        ],
    }


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
    ratios = times["deep"] / times["folded"]
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
        heads += [f"{BACKENDS[record['backend']]}, deep", "folded", "ratio"]
    lines = []
    for rows in zip(*(record["per_example"] for record in records), strict=True):
        lines.append([f"{rows[0]['batch_size']:,}"])
        for row in rows:
            lines[-1] += [f"{row[k]:,g} µs" for k in ("deep", "folded")]
            lines[-1] += [f"{row['ratio']:,.0f}"]
    return markdown(heads, lines, left=0)


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows={"depth": "depth", "units": "units", "inputs": "inputs"},
        arrange=tensorflow_first,
        options={
            **{"depth": 1000, "units": 100, "inputs": 784},
            **{"batch_sizes": [1, 10, 100, 1000, 3000, 10_000], "rounds": 7},
        },
        record="fold_{backend}.json",
    ).main()
