"""The cost of a training step against depth, ours and others', side by side.

    python benchmarks/depth.py --out benchmarks/results/depth.json --plot docs/depth.png
    python benchmarks/depth.py --from benchmarks/results/depth.json --readme README.md

All train the same network: `depth` times `h = phi(h @ W)` without bias, from orthogonal
kernels, `phi` the `DepthShaped("gelu", depth)` of this package with the exact GELU;
mean squared error to random targets, SGD with momentum, one batch. Each contender has a
process of its own, and they run in turn, `--repeats` times.

What is reported is the median over the processes. `build_seconds` is from the imports
to just before the first step (for ours, it has the search for the constants of `phi` in
it). The first step has the compilation in it. `peak_memory_bytes` is the largest
resident set of the process minus what it held right after the imports of the
frameworks, before anything was built; on an accelerator it is JAX's own count.
`needed_memory_bytes` is float32 kernels, gradients and momentum, and one activation for
each layer. A small network's peak is that of its compiler.
"""

import argparse
import functools
import itertools
import json
import time

import _table
import _workers
import numpy as np
from _workers import Case, Contender

RATE, MOMENTUM = 1e-3, 0.9
REFERENCE = "jax.lax.scan"
CASES = ("100,16,100", "1000,16,100", "10000,16,100", "50000,16,100", "200,500,128")
FIELDS = (
    *("build_seconds", "first_step_seconds", "step_seconds"),
    *("peak_memory_bytes", "needed_memory_bytes"),
)
MARKERS = "osD^vPX*"


def main():
    args = arguments()
    if args.worker:
        print(json.dumps(CONTENDERS[args.worker].work(args)))
        return
    rows = _table.rows_of(_table.records_of(measure, args))
    show(rows)
    if args.plot:
        plot(rows, args.plot)
    _table.fill("depth.py", table(rows), args)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    _workers.add_arguments(parser, CONTENDERS, seconds=20.0)
    _table.add_arguments(parser)
    add = parser.add_argument
    add("--cases", nargs="+", type=case, default=[case(text) for text in CASES])
    add("--steps", type=int, default=30, help="at most, after the first")
    add("--plot", help="path of an image to draw")
    for name in ("--depth", "--units", "--batch-size"):
        add(name, type=int, help="(internal) of the worker")
    add("--constants", type=numbers, help="(internal) epsilon,scale,shift")
    return parser.parse_args()


def case(text):
    return Case(*map(int, text.split(",")))


def numbers(text):
    return [float(x) for x in text.split(",")]


def measure(args):
    rows = []
    for size in args.cases:
        rows += measured(size, args)
        _table.write(args.out, _workers.found(args, rows))  # the next may take long
    return _workers.found(args, rows)


def measured(size, args):
    """The rows of one case."""
    constants = ",".join(repr(x) for x in shape(size.depth))
    common = [*size.arguments(), f"--constants={constants}"]
    common += ["--steps", str(args.steps), "--seconds", str(args.seconds)]
    taking_part = [n for n in args.contenders if CONTENDERS[n].takes_part(size)]
    jobs = {name: (common, CONTENDERS[name].backend) for name in taking_part}
    print(size)
    found = _workers.interleaved(__file__, jobs, args.repeats, args.timeout)
    rows = {name: _workers.medians(runs, FIELDS) for name, runs in found.items()}
    reference = rows.get(REFERENCE, {}).get("step_seconds")
    return [
        {**size._asdict(), "contender": name, **derived(row, size, reference)}
        for name, row in rows.items()
    ]


def shape(depth):
    """`epsilon`, `scale`, `shift` of `phi`."""
    from keras_bsnn.activations import DepthShaped

    gelu = DepthShaped("gelu", depth)
    return float(gelu.epsilon), float(gelu.scale), float(gelu.shift)


def derived(row, size, reference):
    """A row with what follows from its medians."""
    if "step_seconds" not in row:
        return row
    per_layer = 1e6 / size.depth
    step = row["step_seconds"]
    runs = row.pop("runs")
    return {
        **row,
        "compile_seconds": row["first_step_seconds"] - step,
        "step_microseconds_per_layer": step * per_layer,
        "spread": [x * per_layer for x in row.pop("spread_seconds")],
        "ratio": reference and step / reference,
        "memory_ratio": row["peak_memory_bytes"] / row["needed_memory_bytes"],
        "runs": runs,
    }


# The workers. Each imports what it needs, and only that.


def data(args):
    """One batch of inputs and targets."""
    random = np.random.default_rng(0)
    shape = (2, args.batch_size, args.units)
    return random.standard_normal(shape, dtype=np.float32)


def kernels(args):
    """Orthogonal ones, drawn one by one: what is not kept must not count as memory."""
    random = np.random.default_rng(1)
    found = np.empty((args.depth, args.units, args.units), np.float32)
    for i in range(args.depth):
        normal = random.standard_normal(found.shape[1:], dtype=np.float32)
        q, r = np.linalg.qr(normal)
        found[i] = q * np.sign(np.diag(r))
    return found


def reported(args, timed, memory, started, built):
    floats = 3 * args.depth * args.units**2 + args.depth * args.batch_size * args.units
    return {
        **timed.result(started, built),
        "peak_memory_bytes": memory.peak(),
        "needed_memory_bytes": 4 * floats,
        "device": _workers.device(),
    }


def ours(args, jit, orthogonal=False):
    from keras_bsnn.constraints import Orthogonal
    from keras_bsnn.layers import DepthStack

    constraint = Orthogonal(steps=1, tolerance=5e-5) if orthogonal else None

    def layers(activation):
        return [DepthStack(dense(args, activation, constraint), args.depth)]

    return trained(args, layers, jit)


def sequential(args):
    def layers(activation):
        return [dense(args, activation) for _ in range(args.depth)]

    return trained(args, layers, jit=True)


def dense(args, activation, constraint=None):
    from keras_bsnn.layers import OrthogonalDense

    return OrthogonalDense(
        args.units,
        activation,
        use_bias=False,
        kernel_constraint=constraint,
        tangent_gradient=constraint is not None,
    )


def trained(args, layers, jit):
    """The report of a Keras model, whose layers a function makes."""
    import keras
    import tensorflow  # noqa: F401  (`fit` would, in the first step)

    from keras_bsnn.activations import DepthShaped

    memory, started = _workers.Memory(), time.perf_counter()
    keras.utils.set_random_seed(0)
    layers = layers(DepthShaped("gelu", args.depth))
    model = keras.Sequential([keras.Input((args.units,)), *layers])
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), "mse", jit_compile=jit)
    batches = np.tile(data(args), (1, args.steps + 1, 1))
    _workers.wait_for_weights(model)
    built = time.perf_counter()
    timed = _workers.Timed(args.steps, args.seconds)
    timed.fit(model, *batches, args.batch_size)
    return reported(args, timed, memory, started, built)


def jax_scan(args):
    import jax
    import jax.numpy as jnp

    epsilon, scale, shift = args.constants
    memory, started = _workers.Memory(), time.perf_counter()

    def layer(h, w):
        z = h @ w
        gelu = jax.nn.gelu(z, approximate=False)
        return scale * (z + epsilon * gelu) + shift, None

    def loss(w, x, y):
        return jnp.mean((jax.lax.scan(layer, x, w)[0] - y) ** 2)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w, velocity, x, y):
        value, gradient = jax.value_and_grad(loss)(w, x, y)
        velocity = MOMENTUM * velocity - RATE * gradient
        return w + velocity, velocity, value

    w = jnp.array(kernels(args))
    x, y = map(jnp.array, data(args))
    state = jax.block_until_ready([w, jnp.zeros_like(w)])
    del w

    def train():
        state[:] = jax.block_until_ready(step(*state, x, y))[:2]

    built = time.perf_counter()
    timed = _workers.Timed(args.steps, args.seconds)
    timed.run(train)
    return reported(args, timed, memory, started, built)


def torch_loop(args, compiled=False):
    import torch
    import torch._dynamo  # the optimizer would, when it is made
    from torch.nn.functional import gelu, mse_loss

    epsilon, scale, shift = args.constants
    memory, started = _workers.Memory(), time.perf_counter()
    weights = [torch.nn.Parameter(torch.from_numpy(w)) for w in kernels(args)]
    optimizer = torch.optim.SGD(weights, RATE, MOMENTUM)
    x, y = map(torch.from_numpy, data(args))

    def loss(weights, h, y):
        for w in weights:
            z = h @ w
            h = scale * (z + epsilon * gelu(z)) + shift
        return mse_loss(h, y)

    loss = torch.compile(loss) if compiled else loss

    def train():
        optimizer.zero_grad()
        loss(weights, x, y).backward()
        optimizer.step()

    built = time.perf_counter()
    timed = _workers.Timed(args.steps, args.seconds)
    timed.run(train)
    return reported(args, timed, memory, started, built)


def shallow(size):
    """Not where compiling layer by layer takes hours."""
    return size.depth <= 200


def wide(size):
    """Where the matrix products, and not the loop, take the time."""
    return size.units >= 100


unconstrained = {
    "ours, TensorFlow XLA": ("tensorflow", True),
    "ours, TensorFlow": ("tensorflow", False),
    "ours, JAX": ("jax", True),
}
CONTENDERS = {
    name: Contender(backend, functools.partial(ours, jit=jit))
    for name, (backend, jit) in unconstrained.items()
}
for name, (backend, jit) in unconstrained.items():
    CONTENDERS[f"{name}, orthogonal"] = Contender(
        backend,
        functools.partial(ours, jit=jit, orthogonal=True),
        **({} if jit and backend == "tensorflow" else {"takes_part": wide}),
    )
CONTENDERS |= {
    REFERENCE: Contender("jax", jax_scan),
    "PyTorch loop": Contender("torch", torch_loop),
    "torch.compile": Contender(
        "torch", functools.partial(torch_loop, compiled=True), shallow
    ),
    "keras.Sequential": Contender("tensorflow", sequential, shallow),
}


# What is made of the rows.


def cases_of(rows):
    """The cases, in the order in which they were measured."""
    sizes = (Case(row["depth"], row["units"], row["batch_size"]) for row in rows)
    return list(dict.fromkeys(sizes))


def by_name(rows):
    """Dict from the contender to its rows, a dict by case."""
    found = {}
    for row in rows:
        size = Case(row["depth"], row["units"], row["batch_size"])
        found.setdefault(row["contender"], {})[size] = row
    return found


def show(rows):
    from rich.console import Console
    from rich.table import Table

    columns = ("first step, s", "us per layer", "spread", "ratio", "memory ratio")
    for size in cases_of(rows):
        shown = Table(title=f"Training step, {size}: medians")
        shown.add_column("contender", no_wrap=True)
        for column in columns:
            shown.add_column(column, justify="right", no_wrap=column == "spread")
        for name, found in by_name(rows).items():
            if size in found:
                shown.add_row(name, *cells(found[size]))
        Console().print(shown)


def cells(row):
    if "step_seconds" not in row:
        return [row["failed"]]
    return [
        significant(row["first_step_seconds"]),
        significant(row["step_microseconds_per_layer"]),
        " to ".join(map(significant, row["spread"])),
        significant(row["ratio"]) if row["ratio"] else "",
        significant(row["memory_ratio"]),
    ]


def significant(x, digits=3):
    """In digits without an exponent."""
    return f"{float(f'{x:.{digits}g}'):,.10g}"


def narrow(rows):
    """The cases of the width that has most depths, by depth."""
    sizes = cases_of(rows)
    widths = [size.units for size in sizes]
    units = max(widths, key=widths.count)
    return sorted(size for size in sizes if size.units == units)


def table(rows):
    """The medians, in Markdown."""
    sizes, narrowed = cases_of(rows), narrow(rows)
    ends = list(dict.fromkeys((narrowed[0], narrowed[-1])))
    header = [f"{s.depth:,} x {s.units}" for s in sizes]
    header += [f"first step, {s.depth:,} x {s.units}" for s in ends]
    lines = []
    for name, found in by_name(rows).items():
        line = [cell(found.get(s), "step_microseconds_per_layer") for s in sizes]
        line += [cell(found.get(s), "first_step_seconds") for s in ends]
        lines.append([name, *line])
    return _table.markdown(["", *header], lines)


def cell(row, field):
    if row is None:
        return ""
    if field not in row:
        reason = row["failed"]
        return reason if reason.startswith("more than") else "failed"
    unit = " s" if field.endswith("seconds") else " µs"
    return significant(row[field]) + unit


def plot(rows, path):
    """Draws the first step and the others against depth."""
    from keras_bsnn import plots  # not at the top: it imports a framework

    sizes = narrow(rows)
    fields = ("first_step_seconds", "step_microseconds_per_layer")
    titles = ("first step, with compilation: seconds", "each step: µs per layer")
    with plots.figure(path, columns=2, size=(10, 4.5)) as panels:
        for panel, field, title in zip(panels, fields, titles, strict=True):
            for (name, found), marker in zip(
                by_name(rows).items(), itertools.cycle(MARKERS), strict=False
            ):
                kept = [size for size in sizes if field in found.get(size, {})]
                values = [found[size][field] for size in kept]
                depths = [size.depth for size in kept]
                panel.plot(depths, values, marker=marker, label=name if kept else None)
            panel.set(xscale="log", yscale="log", title=title)
            panel.set_xlabel(f"layers of {sizes[0].units} units")
        plots.legend_above(panels, ncols=3)


if __name__ == "__main__":
    main()
