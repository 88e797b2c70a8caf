"""A training step of ROAF, of other recurrent layers, and of ROAF written by hand.

    python benchmarks/recurrent.py --page docs/results/roaf.md

Each has the same units, reads one value a step, and is trained by SGD on ten numbers
that a dense layer reads off its last state. Each contender runs in a process of its
own, in turn with the others. PyTorch needs the extra `peers`.
"""

import functools

import _workers
import numpy as np
from _workers import JAX, TORCH, Contender, Training
from runner import Experiment, markdown

RATE, ALPHA, OUTPUTS = 1e-3, 0.999, 10
REFERENCE = "jax.lax.scan by hand"
CASES = ("784,256,100", "10000,128,20")  # steps in time, units, batch size


def run(args, **case):
    return _workers.compare(__file__, CONTENDERS, args, [], **case)


def table(records):
    """Milliseconds of a step, and their ratio to the reference."""
    cases = _workers.cases(records)
    heads = [""]
    for steps, units, batch_size in cases:
        heads += [f"{steps:,} steps, {units} units, batch {batch_size}", "ratio"]
    lines = []
    for name in dict.fromkeys(row["contender"] for row in records):
        lines.append([name])
        for rows in cases.values():
            lines[-1] += cells(rows.get(name, {}), rows.get(REFERENCE, {}))
    return markdown(heads, lines)


def cells(row, reference):
    if "step_seconds" not in row:
        return row.get("failed", ""), ""
    step = row["step_seconds"]
    ratio = "step_seconds" in reference and f"{step / reference['step_seconds']:.2f}"
    return f"{float(f'{1000 * step:.3g}'):,g} ms", ratio or ""


# What the workers build.


def data(case):
    """Sequences `(batch, steps, 1)` and targets."""
    random = np.random.default_rng(0)
    x = random.standard_normal((case.batch_size, case.depth, 1), dtype=np.float32)
    y = random.standard_normal((case.batch_size, OUTPUTS), dtype=np.float32)
    return x, y


def of_keras(backend, name, jit=True, **arguments):
    """Contender of a recurrent layer of Keras, or of ours with its arguments."""

    def build(case):
        import keras

        from keras_bsnn.layers import ROAF

        keras.utils.set_random_seed(0)
        layer = ROAF if name == "ROAF" else getattr(keras.layers, name)
        layers = [layer(case.units, **arguments), keras.layers.Dense(OUTPUTS)]
        model = keras.Sequential([keras.Input((case.depth, 1)), *layers])
        model.compile(keras.optimizers.SGD(RATE), "mse", jit_compile=jit)
        batches = [np.concatenate([a] * (case.steps + 1)) for a in data(case)]
        return Training(model=model, data=batches)

    return Contender(backend, build)


def by_hand(case, unroll=1):
    """ROAF with a Haar filter, differentiated by JAX."""
    import jax
    import jax.numpy as jnp

    random = np.random.default_rng(0)
    n = case.units

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

        h, _ = jax.lax.scan(step, jnp.zeros((len(x), n)), drive, unroll=unroll)
        return jnp.mean((h @ weights["readout"] - y) ** 2)

    @jax.jit
    def step(weights, x, y):
        gradients = jax.grad(loss)(weights, x, y)
        return jax.tree.map(lambda w, g: w - RATE * g, weights, gradients)

    state = [weights]
    x, y = map(jnp.array, data(case))

    def train():
        state[0] = jax.block_until_ready(step(state[0], x, y))

    return Training(train)


def of_torch(case, name):
    import torch

    device = _workers.torch_device()
    recurrent = getattr(torch.nn, name)(1, case.units, batch_first=True).to(device)
    readout = torch.nn.Linear(case.units, OUTPUTS).to(device)
    weights = [*recurrent.parameters(), *readout.parameters()]
    optimizer = torch.optim.SGD(weights, RATE)
    x, y = (torch.from_numpy(a).to(device) for a in data(case))

    def train():
        optimizer.zero_grad()
        outputs, _ = recurrent(x)
        torch.nn.functional.mse_loss(readout(outputs[:, -1]), y).backward()
        optimizer.step()

    return Training(train)


HAAR, SHIFT = ({"alpha": ALPHA, "filter": name} for name in ("haar", "shift"))
CONTENDERS = {
    "ROAF, TensorFlow XLA": of_keras("tensorflow", "ROAF", **HAAR),
    "ROAF, TensorFlow": of_keras("tensorflow", "ROAF", jit=False, **HAAR),
    "ROAF, JAX": of_keras("jax", "ROAF", **HAAR),
    "ROAF, shift, TensorFlow XLA": of_keras("tensorflow", "ROAF", **SHIFT),
    "ROAF, shift, JAX": of_keras("jax", "ROAF", **SHIFT),
    REFERENCE: Contender("jax", by_hand, JAX),
    f"{REFERENCE}, unroll=16": Contender(
        "jax",
        functools.partial(by_hand, unroll=16),
        JAX,
        takes_part=lambda case: case.on_gpu,
    ),
    **{
        f"keras {name}, {label}": of_keras(backend, name)
        for label, backend in (("TensorFlow XLA", "tensorflow"), ("JAX", "jax"))
        for name in ("SimpleRNN", "GRU", "LSTM")
    },
    **{
        f"torch.nn.{name}": Contender(
            "torch", functools.partial(of_torch, name=name), TORCH
        )
        for name in ("RNN", "LSTM")
    },
}

EXPERIMENT = Experiment(
    __file__,
    run,
    table,
    rows=lambda args: [_workers.case(text) for text in args.cases],
    options={
        **_workers.options(CONTENDERS, seconds=20.0),
        **{"cases": [*CASES], "steps": 10},
    },
)

if __name__ == "__main__":
    _workers.main(EXPERIMENT, CONTENDERS)
