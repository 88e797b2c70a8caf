"""A training step of ROAF, of other recurrent layers, and of ROAF written by hand.

    python benchmarks/recurrent.py --out benchmarks/results/recurrent.json

Each has the same units, reads one value a step, and is trained by SGD on ten numbers
that a dense layer reads off its last state. Each contender runs in a process of its
own, in turn with the others. PyTorch needs the extra `peers`.
"""

import argparse
import functools
import json
import time

import _table
import _workers
import numpy as np
from _workers import Contender

RATE, ALPHA, OUTPUTS = 1e-3, 0.999, 10
REFERENCE = "jax.lax.scan by hand"
CASES = ("784,256,100", "10000,128,20")
FIELDS = ("build_seconds", "first_step_seconds", "step_seconds")


class Case(_workers.Case):
    """`depth` is the number of steps in time."""

    def __str__(self):
        return f"{self.depth:,} steps, {self.units} units, batch {self.batch_size}"


def main():
    args = arguments()
    if args.worker:
        print(json.dumps(CONTENDERS[args.worker].work(args)))
        return
    _table.present("recurrent.py", measure, table, args)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    _workers.add_arguments(parser, CONTENDERS, seconds=20.0)
    _table.add_arguments(parser)
    add = parser.add_argument
    add("--cases", nargs="+", type=case, default=[case(text) for text in CASES])
    add("--steps", type=int, default=10, help="of training, at most, after the first")
    for name in ("--depth", "--units", "--batch-size"):
        add(name, type=int, help="(internal) of the worker")
    return parser.parse_args()


def case(text):
    return Case(*map(int, text.split(",")))


def measure(args):
    rows = []
    for size in args.cases:
        common = [*size.arguments(), "--steps", str(args.steps)]
        common += ["--seconds", str(args.seconds)]
        jobs = {name: (common, CONTENDERS[name].backend) for name in args.contenders}
        found = _workers.interleaved(__file__, jobs, args.repeats, args.timeout)
        for name, runs in found.items():
            row = {**size._asdict(), "contender": name}
            rows.append(row | _workers.medians(runs, FIELDS))
        _table.write(args.out, _workers.found(args, rows))  # the next may take long
    return _workers.found(args, rows)


def table(records):
    """Milliseconds of a step, and their ratio to the reference."""
    rows = _table.rows_of(records)
    sizes = list(
        dict.fromkeys(Case(r["depth"], r["units"], r["batch_size"]) for r in rows)
    )
    heads = ["", *(part for size in sizes for part in (str(size), "ratio"))]
    lines = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        cells = [cell for size in sizes for cell in cells_of(rows, name, size)]
        lines.append([name, *cells])
    return _table.markdown(heads, lines)


def cells_of(rows, name, size):
    of_size = {
        row["contender"]: row
        for row in rows
        if (row["depth"], row["units"], row["batch_size"]) == tuple(size)
    }
    row, reference = of_size.get(name, {}), of_size.get(REFERENCE, {})
    if "step_seconds" not in row:
        return row.get("failed", ""), ""
    step = row["step_seconds"]
    ratio = "step_seconds" in reference and f"{step / reference['step_seconds']:.2f}"
    return f"{float(f'{1000 * step:.3g}'):,g} ms", ratio or ""


# The workers. Each imports what it needs, and only that.


def data(args):
    """Sequences `(batch, steps, 1)` and targets."""
    random = np.random.default_rng(0)
    x = random.standard_normal((args.batch_size, args.depth, 1), dtype=np.float32)
    y = random.standard_normal((args.batch_size, OUTPUTS), dtype=np.float32)
    return x, y


def reported(timed, started, built):
    return {**timed.result(started, built), "device": _workers.device()}


def ours(units, **arguments):
    from keras_bsnn.layers import ROAF

    return ROAF(units, ALPHA, **arguments)


def of_keras(name, units):
    import keras

    return getattr(keras.layers, name)(units)


def trained(args, layer, jit):
    """The report of a Keras model of a layer that a function of the units makes."""
    import keras
    import tensorflow  # noqa: F401  (`fit` would, in the first step)

    started = time.perf_counter()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((args.depth, 1))
    model = keras.Sequential([inputs, layer(args.units), keras.layers.Dense(OUTPUTS)])
    model.compile(keras.optimizers.SGD(RATE), "mse", jit_compile=jit)
    batches = (np.tile(a, (args.steps + 1, *[1] * (a.ndim - 1))) for a in data(args))
    _workers.wait_for_weights(model)
    built = time.perf_counter()
    timed = _workers.Timed(args.steps, args.seconds)
    timed.fit(model, *batches, args.batch_size)
    return reported(timed, started, built)


def by_hand(args):
    """ROAF with a Haar filter, differentiated by JAX."""
    import jax
    import jax.numpy as jnp

    started = time.perf_counter()
    random = np.random.default_rng(0)
    n = args.units

    def normal(*shape):
        return jnp.array(random.standard_normal(shape, dtype=np.float32))

    filter = jnp.linalg.qr(normal(n, n))[0]
    weights = {
        "kernel": normal(1, n),
        "recurrent": normal(n, n) / n**0.5,
        "bias": jnp.zeros(n),
        "readout": normal(n, OUTPUTS) / n**0.5,
    }

    def loss(weights, x, y):
        drive = jnp.swapaxes(x @ weights["kernel"] + weights["bias"], 0, 1)

        def step(h, u):
            bent = jnp.tanh(h @ weights["recurrent"] + u)
            return ALPHA * h @ filter + (1 - ALPHA) * bent, None

        h, _ = jax.lax.scan(step, jnp.zeros((len(x), n)), drive)
        return jnp.mean((h @ weights["readout"] - y) ** 2)

    @jax.jit
    def step(weights, x, y):
        gradients = jax.grad(loss)(weights, x, y)
        return jax.tree.map(lambda w, g: w - RATE * g, weights, gradients)

    state = [weights]
    x, y = map(jnp.array, data(args))

    def train():
        state[0] = jax.block_until_ready(step(state[0], x, y))

    built = time.perf_counter()
    timed = _workers.Timed(args.steps, args.seconds)
    timed.run(train)
    return reported(timed, started, built)


def of_torch(args, name):
    import torch

    started = time.perf_counter()
    recurrent = getattr(torch.nn, name)(1, args.units, batch_first=True)
    readout = torch.nn.Linear(args.units, OUTPUTS)
    weights = [*recurrent.parameters(), *readout.parameters()]
    optimizer = torch.optim.SGD(weights, RATE)
    x, y = map(torch.from_numpy, data(args))

    def train():
        optimizer.zero_grad()
        outputs, _ = recurrent(x)
        torch.nn.functional.mse_loss(readout(outputs[:, -1]), y).backward()
        optimizer.step()

    built = time.perf_counter()
    timed = _workers.Timed(args.steps, args.seconds)
    timed.run(train)
    return reported(timed, started, built)


def contender(backend, layer, jit=True):
    return Contender(backend, functools.partial(trained, layer=layer, jit=jit))


def filtered(name):
    return functools.partial(ours, filter=name)


PLAIN = {
    name: functools.partial(of_keras, name) for name in ("SimpleRNN", "GRU", "LSTM")
}
CONTENDERS = {
    "ROAF, TensorFlow XLA": contender("tensorflow", filtered("haar")),
    "ROAF, TensorFlow": contender("tensorflow", filtered("haar"), jit=False),
    "ROAF, JAX": contender("jax", filtered("haar")),
    "ROAF, shift, TensorFlow XLA": contender("tensorflow", filtered("shift")),
    "ROAF, shift, JAX": contender("jax", filtered("shift")),
    REFERENCE: Contender("jax", by_hand),
    **{
        f"keras {name}, TensorFlow XLA": contender("tensorflow", layer)
        for name, layer in PLAIN.items()
    },
    **{f"keras {name}, JAX": contender("jax", layer) for name, layer in PLAIN.items()},
    **{
        f"torch.nn.{name}": Contender("torch", functools.partial(of_torch, name=name))
        for name in ("RNN", "LSTM")
    },
}


if __name__ == "__main__":
    main()
