"""What orthogonality costs: training steps with and without the constraint.

    python benchmarks/constraint.py

All variants of a width are timed in turn, in one process, and reported as ratios to the
median step of the same network without a constraint.
"""

import time

import keras
import numpy as np
from runner import Experiment, columns

from keras_bsnn.constraints import Orthogonal
from keras_bsnn.layers import OrthogonalDense

RETRACTIONS = ("none", "newton_schulz", "cayley", "qr")


def run(args, units):
    x = np.random.default_rng(0).normal(size=(args.batch_size, units))
    models = {name: network(name, units, args) for name in RETRACTIONS}
    first, *times = (
        {name: seconds(model, x) for name, model in models.items()}
        for _ in range(1 + args.rounds)
    )
    plain = np.median([round["none"] for round in times])
    rows = []
    for name in RETRACTIONS:
        low, middle, high = np.quantile([r[name] for r in times], (0.25, 0.5, 0.75))
        rows.append(
            {
                "retraction": name,
                "first_step_seconds": round(first[name], 2),
                "step_milliseconds": round(1e3 * middle, 2),
                "ratio": round(middle / plain, 2),
                "ratio_spread": [round(low / plain, 2), round(high / plain, 2)],
            }
        )
    return rows


def network(retraction, units, args):
    constraint = None if retraction == "none" else Orthogonal(retraction)
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


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(
            {
                "retraction": "{retraction}",
                "units": "{units}",
                "first step, s": "{first_step_seconds}",
                "step, ms": "{step_milliseconds}",
                "ratio": "{ratio}",
                "quartiles": "{ratio_spread[0]} to {ratio_spread[1]}",
            }
        ),
        rows={"units": "units"},
        options={
            "units": [64, 128, 256, 512],
            **{"depth": 10, "batch_size": 64, "rounds": 15, "jit": False},
        },
    ).main()
