"""Times the package of two checkouts in turn: what does a change cost?

    git worktree add ../before COMMIT
    python benchmarks/before_after.py --before ../before

Each case has a process for the one checkout and one for the other, `--rounds` times.
The table has the medians over the rounds of the first step, with its compilation, and
of the fastest of the later steps, and their ratios: below 1, it has become faster.
JAX always compiles: there, give `--modes XLA`.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from runner import Choice, Experiment, columns, significant

ROOT = Path(__file__).parents[1]
PLAIN = {"activation": "gp_tanh", "kernel_constraint": None}
CASES = {  # the block, its arguments, depth, units and samples
    "OrthogonalDense": ("OrthogonalDense", PLAIN, 10_000, 16, 100),
    "OrthogonalDense, wide": ("OrthogonalDense", PLAIN, 100, 500, 128),
    "tangent gradient": (
        *("OrthogonalDense", {**PLAIN, "tangent_gradient": True}),
        *(100, 256, 64),
    ),
    "retraction": ("OrthogonalDense", {"activation": "gp_tanh"}, 100, 128, 64),
    "StiefelMuon": ("OrthogonalDense", {"activation": "gp_tanh"}, 100, 128, 64),
    "BatchNormDense": ("BatchNormDense", {}, 1000, 32, 100),
    "ROAFDense": ("ROAFDense", {"alpha": 0.999}, 1000, 64, 100),
    "keras.layers.Dense": ("Dense", {"activation": "tanh"}, 1000, 32, 100),
    "ROAF": ("ROAF", {"alpha": 0.999}, 784, 256, 100),
    "signal_report": ("OrthogonalDense", {"activation": "gp_tanh"}, 200, 64, 64),
}


def model_of(name, mode, keras, package):
    """A compiled model, and the shapes of its inputs and targets."""
    kind, arguments, depth, units, samples = CASES[name]
    layer = getattr(package.layers, kind, None) or getattr(keras.layers, kind)
    if kind == "ROAF":
        shape, hidden = (depth, 1), layer(units, **arguments)
    else:
        block = layer(units, **arguments)
        shape, hidden = (units,), package.layers.DepthStack(block, depth)
    model = keras.Sequential([keras.Input(shape), hidden])
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    if name == "StiefelMuon":
        optimizer = package.optimizers.StiefelMuon(1e-3)
    model.compile(optimizer, "mse", jit_compile=mode == "XLA")
    return model, (samples, *shape), (samples, units)


def work(name, mode, steps):
    """Seconds of the first step, and of the fastest of the others, in this process."""
    import keras
    import numpy as np

    import keras_bsnn

    model, *shapes = model_of(name, mode, keras, keras_bsnn)
    draw = np.random.default_rng(0)
    x, y = (draw.normal(size=shape).astype("float32") for shape in shapes)
    step = model.train_on_batch
    if name == "signal_report":
        step = keras_bsnn.diagnostics.SignalMeter(model)
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        step(x, y)
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "step": min(seconds[1:])}


def measured(checkout, *arguments):
    command = [sys.executable, "-W", "ignore", __file__, "--worker", *arguments]
    here = {"PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"}
    settings = {"cwd": checkout, "capture_output": True, "text": True}
    done = subprocess.run(command, env={**os.environ, **here}, **settings)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run(args, case, mode):
    checkouts = {"before": args.before.resolve(), "after": ROOT}
    found = {name: [] for name in checkouts}
    for i in range(args.rounds):
        for name in sorted(checkouts, reverse=i % 2):
            found[name].append(measured(checkouts[name], case, mode, str(args.steps)))
    row = {}
    for what in ("first", "step"):
        for name, rounds in found.items():
            median = statistics.median(seconds[what] for seconds in rounds)
            row[f"{name}_{what}"] = significant(median)
        row[f"{what}_ratio"] = significant(row[f"after_{what}"] / row[f"before_{what}"])
    return row


TABLE = {
    "": "{case}, {mode}",
    "first step, s: before": "{before_first}",
    "first step, s: after": "{after_first}",
    "first step: ratio": "{first_ratio}",
    "step, s: before": "{before_step}",
    "step, s: after": "{after_step}",
    "step: ratio": "{step_ratio}",
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(*sys.argv[2:4], int(sys.argv[4]))))
    else:
        Experiment(
            __file__,
            run,
            columns(TABLE),
            rows={"case": "cases", "mode": "modes"},
            options={
                **{"before": Path, "rounds": 5, "steps": 15},
                **{"cases": Choice(CASES), "modes": Choice(("XLA", "no XLA"))},
            },
            record="before_after_{backend}.json",
        ).main()
