"""The least time that a training step can take on a device, next to what it takes.

    python benchmarks/floor.py --results benchmarks/results/depth.json

It measures, with JAX in float32, the rate of matrix products and of copies, and counts
the operations and bytes of a step of `depth` layers `phi(h @ W)` under SGD with
momentum:

- three products of `2 batch units^2` operations for each layer (one more for the
  tangent gradient); as batched products, and with two of them in the chain, where a
  layer waits for the one before;
- kernels read forwards, backwards and by the update, the gradient written and read, the
  momentum and the kernels written, the momentum read: 8 floats for each weight; and
  what enters each layer written and read.

The largest of the three is the floor, for a network that no cache holds. Each rate is
measured under JAX's default precision (TF32 on recent GPUs), and under the highest.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import _table
import _workers
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--depth", type=int, default=200)
    add("--units", type=int, default=500)
    add("--batch-size", type=int, default=128)
    add("--megabytes", type=int, default=1024, help="that are copied")
    add("--rounds", type=int, default=10)
    add("--results", type=Path, help="what depth.py wrote: the measured steps")
    add("--out", type=Path)
    args = parser.parse_args()
    bandwidth = copied_bytes(args)
    rows = [row for p in ("default", "highest") for row in floors(p, bandwidth, args)]
    steps = measured(args) if args.results else {}
    for row in rows:
        row["ratios"] = {k: s / row["floor_seconds"] for k, s in steps.items()}
    show(rows, steps)
    args.device = jax.devices()[0].device_kind
    _table.write(args.out, _workers.found(args, rows))


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


def rates(args):
    """Operations in a second of products of three shapes."""
    depth, units, batch = args.depth, args.units, args.batch_size
    kernels = jax.random.normal(jax.random.key(0), (depth, units, units))
    kernels /= units**0.5
    inputs = jax.random.normal(jax.random.key(1), (depth, batch, units))

    def chain(x, kernels):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, kernels)[0]

    def outer(inputs):
        return jnp.swapaxes(inputs, 1, 2) @ inputs

    small = 2 * depth * batch * units**2
    return {
        "square": 2
        * depth
        * units**3
        / seconds(jnp.matmul, kernels, kernels, rounds=args.rounds),
        "gradient": small / seconds(outer, inputs, rounds=args.rounds),
        "chain": small / seconds(chain, inputs[0], kernels, rounds=args.rounds),
    }


def floors(precision, bandwidth, args):
    """Of the plain step, and of that with a tangent gradient."""
    with jax.default_matmul_precision(precision):
        found = rates(args)
    weights = args.depth * args.units**2
    product = 2 * args.batch_size * weights
    activations = args.depth * args.batch_size * args.units
    moved = 4 * (8 * weights + 2 * activations) / bandwidth
    for batched, name in ((1, "plain"), (2, "tangent gradient")):
        parts = {
            "operations_seconds": (2 + batched) * product / max(found.values()),
            "chain_seconds": 2 * product / found["chain"]
            + batched * product / found["gradient"],
            "bytes_seconds": moved,
        }
        yield {
            "precision": precision,
            "step": name,
            **{f"{k}_per_second": rate for k, rate in found.items()},
            "bytes_per_second": bandwidth,
            **parts,
            "floor_seconds": max(parts.values()),
        }


def measured(args):
    """Dict from a contender of depth.py to its step, at this size."""
    size = (args.depth, args.units, args.batch_size)
    return {
        row["contender"]: row["step_seconds"]
        for row in json.loads(args.results.read_text())["result"]
        if (row["depth"], row["units"], row["batch_size"]) == size
        and "step_seconds" in row
    }


def show(rows, steps):
    table = Table(title=f"Floor of a training step on {jax.devices()[0].device_kind}")
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(f"{row['precision']}, {row['step']}", justify="right")
    for key in [*rows[0]][2:-1]:
        unit = 1e3 if key.endswith("_seconds") else 1e-12
        name = key.replace("_seconds", ", ms").replace("_per_second", ", 1e12/s")
        table.add_row(name, *(f"{unit * row[key]:.3g}" for row in rows))
    for name, step in steps.items():
        ratios = (f"{row['ratios'][name]:.2f} x" for row in rows)
        table.add_row(f"{name}: {1e3 * step:.3g} ms", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
