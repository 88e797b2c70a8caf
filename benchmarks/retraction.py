"""What orthogonality costs in a deep network: ours, Keras' and PyTorch's, side by side.

    python benchmarks/retraction.py --out benchmarks/results/retraction.json

`depth` times `h = phi(h @ W)` without bias, `phi` the `DepthShaped("gelu", depth)` of
this package, and fixed orthonormal columns that give 10 logits. The task is that of a
linear teacher on normal inputs: cross-entropy, SGD with momentum, a new batch at every
step. Each contender has a process of its own, and they run in turn, `--repeats` times.

Reported are the median of the steps after the first, its ratio to the same framework's
step without a constraint, and the orthogonality error: the largest entry of
`|W^T W - 1|` over all layers, after the last step and the largest after any. It is
measured between the steps, untimed. A learning rate does not mean the same to all:
PyTorch's and geotorch's parametrizations take the step in other coordinates.
"""

import argparse
import functools
import json
import time
from pathlib import Path

import _table
import _workers
import numpy as np
from _workers import Case, Contender

CLASSES = 10
MOMENTUM = 0.9
FIELDS = (
    *("build_seconds", "first_step_seconds", "step_seconds", "steps"),
    *("last_error", "largest_error"),
)


def main():
    args = arguments()
    if args.worker:
        print(json.dumps(CONTENDERS[args.worker].work(args)))
        return
    rows = measure(args)
    show(rows)
    _table.write(args.out, _workers.found(args, rows))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    _workers.add_arguments(parser, CONTENDERS, seconds=120.0)
    add = parser.add_argument
    add("--out", type=Path)
    add("--depth", type=int, default=200)
    add("--units", type=int, default=500)
    add("--batch-size", type=int, default=128)
    add("--rounds", type=int, default=30, help="steps at most, after the first")
    add("--learning-rate", type=float, default=1e-3)
    add("--constants", type=json.loads, help="(internal) epsilon, scale, shift")
    return parser.parse_args()


def measure(args):
    size = Case(args.depth, args.units, args.batch_size)
    common = size.arguments()
    for name in ("rounds", "seconds", "learning_rate"):
        common += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    common.append(f"--constants={json.dumps(shape(args.depth))}")
    jobs = {name: (common, CONTENDERS[name].backend) for name in args.contenders}
    found = _workers.interleaved(__file__, jobs, args.repeats, args.timeout)
    rows = {name: _workers.medians(runs, FIELDS) for name, runs in found.items()}
    return [
        {**size._asdict(), "contender": name, **derived(name, row, rows)}
        for name, row in rows.items()
    ]


def shape(depth):
    """`epsilon`, `scale`, `shift` of `phi`; less than 4 layers take that of 4."""
    from keras_bsnn.activations import DepthShaped

    gelu = DepthShaped("gelu", max(depth, 4))
    return float(gelu.epsilon), float(gelu.scale), float(gelu.shift)


def derived(name, row, rows):
    """A row with its ratio to the step without a constraint."""
    plain = rows.get(PLAIN[framework(name)], {}).get("step_seconds")
    step = row.get("step_seconds")
    runs = row.pop("runs")
    ratio = step / plain if step and plain else None
    return {**row, "ratio": ratio, "runs": runs}


def framework(name):
    """The last part of a name of ours; all others run on PyTorch."""
    last = name.rpartition(", ")[2]
    return last if last in PLAIN else "PyTorch"


def show(rows):
    from rich.console import Console
    from rich.table import Table

    size = Case(rows[0]["depth"], rows[0]["units"], rows[0]["batch_size"])
    table = Table(title=f"Training step, {size}: medians")
    table.add_column("contender", no_wrap=True)
    for column in ("step, s", "spread", "ratio", "last error", "largest error"):
        table.add_column(column, justify="right", no_wrap=column == "spread")
    for row in rows:
        table.add_row(row["contender"], *cells(row))
    Console().print(table)


def cells(row):
    if "step_seconds" not in row:
        return [row["failed"]]
    return [
        f"{row['step_seconds']:.3g}",
        " to ".join(f"{x:.3g}" for x in row["spread_seconds"]),
        f"{row['ratio']:.2f}" if row["ratio"] else "",
        f"{row['last_error']:.1e}",
        f"{row['largest_error']:.1e}",
    ]


# The workers. Each imports what it needs, and only that.


def data(args):
    """Inputs, labels and the fixed kernel of the logits: of all batches."""
    random = np.random.default_rng(0)
    samples = (args.rounds + 1) * args.batch_size
    x = random.standard_normal((samples, args.units), dtype=np.float32)
    teacher = random.standard_normal((args.units, CLASSES), dtype=np.float32)
    labels = np.argmax(x @ teacher, axis=1)
    tall = args.units >= CLASSES
    q = np.linalg.qr(teacher if tall else teacher.T)[0]
    return x, labels, np.ascontiguousarray(q if tall else q.T)


class Errors:
    """The orthogonality errors after each step, of kernels that a function returns."""

    def __init__(self, kernels):
        self.kernels = kernels
        self.found = []

    def measure(self):
        kernels = (np.asarray(w) for w in self.kernels())
        errors = [np.abs(w.T @ w - np.eye(len(w.T))).max() for w in kernels]
        self.found.append(float(np.max(errors)))  # NaN if one is

    def result(self):
        return {"last_error": self.found[-1], "largest_error": max(self.found)}


def ours(args, jit, constraint=None, tangent=False):
    import keras
    import tensorflow  # noqa: F401  (`fit` would, in the first step)

    import keras_bsnn

    started = time.perf_counter()
    keras.utils.set_random_seed(0)
    x, labels, logits = data(args)
    epsilon, scale, shift = args.constants
    block = keras_bsnn.layers.OrthogonalDense(
        args.units,
        keras_bsnn.activations.DepthShaped(
            "gelu", args.depth, epsilon=epsilon, scale=scale, shift=shift
        ),
        use_bias=False,
        kernel_constraint=constraint and constraint(),
        tangent_gradient=tangent,
    )
    stack = keras_bsnn.layers.DepthStack(block, args.depth)
    last = keras.layers.Dense(CLASSES, use_bias=False, trainable=False)
    model = keras.Sequential([keras.Input((args.units,)), stack, last])
    last.set_weights([logits])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(args.learning_rate, MOMENTUM)
    model.compile(optimizer, loss, jit_compile=jit)
    _workers.wait_for_weights(model)
    built = time.perf_counter()
    return fitted(model, stack, x, labels, args, started, built)


def fitted(model, stack, x, labels, args, started, built):
    """The report of a Keras model."""
    import keras

    def kernels():
        return keras.ops.convert_to_numpy(stack.weights[0])

    errors = Errors(kernels)
    timed = _workers.Timed(args.rounds, args.seconds)
    timed.fit(model, x, labels, args.batch_size, after=lambda _: errors.measure())
    return reported(timed, errors, started, built)


def reported(timed, errors, started, built):
    return {
        **timed.result(started, built),
        **errors.result(),
        "device": _workers.device(),
    }


def every_update():
    from keras_bsnn.constraints import Orthogonal

    return Orthogonal()


def tolerant():
    from keras_bsnn.constraints import Orthogonal

    return Orthogonal(steps=1, tolerance=5e-5)


def unit_norm():
    import keras

    return keras.constraints.UnitNorm(axis=0)


def torch_plain(args):
    def network(torch, kernels):
        parameters = [torch.nn.Parameter(w) for w in kernels]
        return lambda: parameters, parameters

    return torch_trained(args, network)


def torch_parametrized(args, orthogonal_map):
    def constrain(torch, layer):
        parametrizations = torch.nn.utils.parametrizations
        parametrizations.orthogonal(layer, "weight", orthogonal_map)

    return torch_trained(args, linear_layers(constrain))


def geotorch_parametrized(args):
    def constrain(torch, layer):
        import geotorch

        kernel = layer.weight.detach().clone()
        geotorch.orthogonal(layer, "weight")
        layer.weight = kernel

    return torch_trained(args, linear_layers(constrain))


def linear_layers(constrain):
    """A network of `torch.nn.Linear` layers, each of them constrained."""

    def network(torch, kernels):
        layers = [torch.nn.Linear(len(w), len(w), bias=False) for w in kernels]
        for layer, kernel in zip(layers, kernels, strict=True):
            layer.weight.data = kernel
            constrain(torch, layer)
        modules = torch.nn.ModuleList(layers)
        return lambda: [layer.weight.T for layer in layers], modules.parameters()

    return network


def pogo(args):
    """POGO on all kernels as one parameter, as its manual asks for."""

    def network(torch, kernels):
        stacked = torch.nn.Parameter(kernels)
        return stacked.unbind, [stacked]

    def optimizer(parameters):
        from pogo import POGO, base

        return POGO(parameters, base.SGD(MOMENTUM), args.learning_rate)

    return torch_trained(args, network, optimizer)


def torch_trained(args, network, optimizer=None):
    """The report of a PyTorch network.

    Args:
        network: callable of torch and the initial kernels; returns a function that
            computes the kernels, and the parameters.
        optimizer: callable of the parameters, or `None` for SGD.
    """
    import torch
    import torch._dynamo  # the optimizer would, when it is made
    from torch.nn.functional import cross_entropy, gelu

    started = time.perf_counter()
    torch.manual_seed(0)
    epsilon, scale, shift = args.constants
    x, labels, logits = map(torch.from_numpy, data(args))
    normal = torch.randn(args.depth, args.units, args.units)
    kernels, parameters = network(torch, torch.linalg.qr(normal)[0])
    sgd = functools.partial(torch.optim.SGD, lr=args.learning_rate, momentum=MOMENTUM)
    optimizer = (optimizer or sgd)(parameters)
    split = (x.split(args.batch_size), labels.split(args.batch_size))
    batches = iter(zip(*split, strict=True))

    def train():
        h, expected = next(batches)
        optimizer.zero_grad()
        for w in kernels():
            z = h @ w
            h = scale * (z + epsilon * gelu(z)) + shift
        cross_entropy(h @ logits, expected).backward()
        optimizer.step()

    def current():
        with torch.no_grad():
            return [w.detach().numpy() for w in kernels()]

    built = time.perf_counter()
    errors = Errors(current)
    timed = _workers.Timed(args.rounds, args.seconds)
    timed.run(train, after=errors.measure)
    return reported(timed, errors, started, built)


BACKENDS = {
    "TensorFlow XLA": ("tensorflow", True),
    "TensorFlow": ("tensorflow", False),
    "JAX": ("jax", True),
}
PLAIN = {name: f"ours, plain, {name}" for name in BACKENDS} | {
    "PyTorch": "PyTorch, plain"
}


def on_keras(kind, names=tuple(BACKENDS), **kwargs):
    """Contenders of ours, one for each backend."""
    return {
        f"{kind}, {name}": Contender(
            BACKENDS[name][0], functools.partial(ours, jit=BACKENDS[name][1], **kwargs)
        )
        for name in names
    }


CONTENDERS = {
    **on_keras("ours, plain"),
    **on_keras(
        "ours, every update", ("TensorFlow XLA", "JAX"), constraint=every_update
    ),
    **on_keras("ours, tolerance 5e-5", constraint=tolerant, tangent=True),
    **on_keras(
        "keras UnitNorm (not orthogonal)", ("TensorFlow XLA",), constraint=unit_norm
    ),
    "PyTorch, plain": Contender("torch", torch_plain),
    **{
        f"PyTorch, parametrizations.orthogonal, {name}": Contender(
            "torch", functools.partial(torch_parametrized, orthogonal_map=name)
        )
        for name in ("cayley", "householder", "matrix_exp")
    },
    "geotorch.orthogonal": Contender("torch", geotorch_parametrized),
    "pogo-torch": Contender("torch", pogo),
}


if __name__ == "__main__":
    main()
