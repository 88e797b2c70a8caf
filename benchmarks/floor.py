"""The least time that a training step can take on a device, next to what it takes.

    python benchmarks/floor.py --results benchmarks/results/depth.json

For each of `--cases`, given as layers, units and batch size, it measures, with JAX in
float32, the rate of matrix products and of copies, and counts the operations and bytes
of a step of `depth` layers `phi(h @ W)` under SGD with momentum:

- three products of `2 batch units^2` operations for each layer (one more for the
  tangent gradient); as batched products, and with two of them in the chain, where a
  layer waits for the one before;
- kernels read forwards, backwards and by the update, the gradient written and read, the
  momentum and the kernels written, the momentum read: 8 floats for each weight; and
  what enters each layer written and read.

The largest of the three is the floor, for a network that no cache holds. Each rate is
measured under JAX's default precision (TF32 on recent GPUs), and under the highest.
"""

import itertools
import statistics
import time
from pathlib import Path

import _workers
import jax
import jax.numpy as jnp
from runner import Experiment, markdown, read


def run(args, depth, units, batch_size):
    """The floor of the plain step, and of that with a tangent gradient."""
    weights, inputs = depth * units**2, depth * batch_size * units
    bandwidth = copied_bytes(args)
    moved = 4 * (8 * weights + 2 * inputs) / bandwidth
    rows = []
    for precision in ("default", "highest"):
        with jax.default_matmul_precision(precision):
            rate = rates(depth, units, batch_size, args.rounds)
        product = 2 * batch_size * weights
        for batched, step in ((1, "plain"), (2, "tangent gradient")):
            parts = {
                "operations_seconds": (2 + batched) * product / max(rate.values()),
                "chain_seconds": product
                * (2 / rate["chain"] + batched / rate["gradient"]),
                "bytes_seconds": moved,
            }
            rows.append(
                {
                    **{"device": jax.devices()[0].device_kind},
                    **{"precision": precision, "step": step},
                    **{f"{k}_per_second": value for k, value in rate.items()},
                    **{"bytes_per_second": bandwidth, **parts},
                    "floor_seconds": max(parts.values()),
                }
            )
    steps = measured(args.results, depth, units, batch_size)
    return [
        {**row, "ratios": {k: s / row["floor_seconds"] for k, s in steps.items()}}
        for row in rows
    ]


def seconds(function, *arguments, rounds):
    """The median time of a compiled function."""
    function = jax.jit(function)
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def copied_bytes(args):
    """Bytes read and written in a second."""
    x = jnp.zeros(args.megabytes * 2**18, "float32")
    return 2 * x.nbytes / seconds(lambda x: x + 1, x, rounds=args.rounds)


def rates(depth, units, batch, rounds):
    """Operations in a second of products of three shapes."""
    kernels = jax.random.normal(jax.random.key(0), (depth, units, units))
    kernels /= units**0.5
    inputs = jax.random.normal(jax.random.key(1), (depth, batch, units))

    def chain(x, kernels):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, kernels)[0]

    def outer(inputs):
        return jnp.swapaxes(inputs, 1, 2) @ inputs

    square, small = 2 * depth * units**3, 2 * depth * batch * units**2
    return {
        "square": square / seconds(jnp.matmul, kernels, kernels, rounds=rounds),
        "gradient": small / seconds(outer, inputs, rounds=rounds),
        "chain": small / seconds(chain, inputs[0], kernels, rounds=rounds),
    }


def measured(results, depth, units, batch_size):
    """Dict from a contender of depth.py to its step, at this size."""
    size = {"depth": depth, "units": units, "batch_size": batch_size}
    return {
        row["contender"]: row["step_seconds"]
        for row in (read(Path(results)) if results else [])
        if size.items() <= row.items() and "step_seconds" in row
    }


def table(records):
    """A table for each size."""
    sizes = ("depth", "units", "batch_size")
    groups = itertools.groupby(records, lambda row: [row[key] for key in sizes])
    return "\n\n".join(of_size(list(rows)) for _, rows in groups)


def of_size(records):
    """A column for each precision and step; rows for rates, times and ratios."""
    size = "{depth:,} x {units:,}, batch {batch_size:,}: {device}"
    heads = [size.format(**records[0])]
    heads += [f"{row['precision']}, {row['step']}" for row in records]
    lines = []
    for key in records[0]:
        if key.endswith(("_seconds", "_per_second")):
            unit = 1e3 if key.endswith("_seconds") else 1e-12
            name = key.replace("_seconds", ", ms").replace("_per_second", ", 1e12/s")
            lines.append([name, *(f"{unit * row[key]:.3g}" for row in records)])
    for name in records[0]["ratios"]:
        lines.append([name, *(f"{row['ratios'][name]:.2f} x" for row in records)])
    return markdown(heads, lines)


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows=lambda args: [_workers.case(text) for text in args.cases],
        options={
            **{"cases": ["200,500,128"], "rounds": 10},
            **{"megabytes": 1024, "results": str},  # that are copied; of depth.py
        },
    ).main()
