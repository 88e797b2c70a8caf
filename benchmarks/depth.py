"""The cost of a training step against depth, ours and others', side by side.

    python benchmarks/depth.py --page docs/results/speed.md
    python benchmarks/depth.py --show --page docs/results/speed.md

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

import functools
import itertools

import _workers
import numpy as np
from _workers import JAX, TORCH, Contender, Training
from runner import Experiment, markdown, significant

RATE, MOMENTUM = 1e-3, 0.9
REFERENCE = "jax.lax.scan"
CASES = ("100,16,100", "1000,16,100", "10000,16,100", "50000,16,100", "200,500,128")
MARKERS = "osD^vPX*"


def run(args, depth, units, batch_size):
    case = {"depth": depth, "units": units, "batch_size": batch_size}
    rows = _workers.compare(
        *(__file__, CONTENDERS, args, ["peak_memory_bytes"]),
        **{**case, "constants": shape(depth)},
    )
    steps = {row["contender"]: row.get("step_seconds") for row in rows}
    needed = 4 * (3 * depth * units**2 + depth * batch_size * units)
    return [row | derived(row, depth, needed, steps.get(REFERENCE)) for row in rows]


def shape(depth):
    """`epsilon`, `scale`, `shift` of `phi`."""
    from keras_bsnn.activations import DepthShaped

    gelu = DepthShaped("gelu", depth)
    return float(gelu.epsilon), float(gelu.scale), float(gelu.shift)


def derived(row, depth, needed, reference):
    """What follows from the medians."""
    if "step_seconds" not in row:
        return {}
    step = row["step_seconds"]
    return {
        "needed_memory_bytes": needed,
        "compile_seconds": row["first_step_seconds"] - step,
        "step_microseconds_per_layer": 1e6 * step / depth,
        "spread": [1e6 * x / depth for x in row["spread_seconds"]],
        "ratio": reference and step / reference,
        "memory_ratio": row["peak_memory_bytes"] / needed,
    }


# What the workers build.


def data(case):
    """One batch of inputs and targets."""
    shape = (2, case.batch_size, case.units)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def kernels(case):
    """Orthogonal ones: one is drawn, and the others have its rows in another order."""
    shape = (case.units, case.units)
    normal = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    q, _ = np.linalg.qr(normal)
    found = np.empty((case.depth, *shape), np.float32)
    for i in range(case.depth):
        found[i] = np.roll(q, i, axis=0)
    return found


def keras_model(case, jit=True, orthogonal=False, stacked=True):
    import keras

    from keras_bsnn.activations import DepthShaped
    from keras_bsnn.constraints import Orthogonal
    from keras_bsnn.layers import DepthStack, OrthogonalDense

    keras.utils.set_random_seed(0)
    phi = DepthShaped("gelu", case.depth)
    constraint = Orthogonal(steps=1, tolerance=5e-5)

    def dense():
        return OrthogonalDense(
            case.units,
            phi,
            use_bias=False,
            kernel_constraint=constraint if orthogonal else None,
            tangent_gradient=orthogonal,
        )

    layers = [DepthStack(dense(), case.depth)] if stacked else []
    layers = layers or [dense() for _ in range(case.depth)]
    model = keras.Sequential([keras.Input((case.units,)), *layers])
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), "mse", jit_compile=jit)
    return Training(model=model, data=np.tile(data(case), (1, case.steps + 1, 1)))


def jax_scan(case, unroll=1):
    import jax
    import jax.numpy as jnp

    epsilon, scale, shift = case.constants

    def layer(h, w):
        z = h @ w
        gelu = jax.nn.gelu(z, approximate=False)
        return scale * (z + epsilon * gelu) + shift, None

    def loss(w, x, y):
        return jnp.mean((jax.lax.scan(layer, x, w, unroll=unroll)[0] - y) ** 2)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w, velocity, x, y):
        value, gradient = jax.value_and_grad(loss)(w, x, y)
        velocity = MOMENTUM * velocity - RATE * gradient
        return w + velocity, velocity, value

    w = jnp.array(kernels(case))
    x, y = map(jnp.array, data(case))
    state = jax.block_until_ready([w, jnp.zeros_like(w)])
    del w

    def train():
        state[:] = jax.block_until_ready(step(*state, x, y))[:2]

    return Training(train)


def torch_loop(case, compiled=None, graph=False):
    """A loop in Python.

    Args:
        case: the size.
        compiled: what `torch.compile` is given, the `"network"` or the `"layer"`, or
            `None`.
        graph: whether the kernels of a step are recorded once, as a CUDA graph.
    """
    import torch
    from torch.nn.functional import gelu, mse_loss

    device = _workers.torch_device()
    epsilon, scale, shift = case.constants
    weights = [torch.from_numpy(w).to(device) for w in kernels(case)]
    weights = [torch.nn.Parameter(w) for w in weights]
    optimizer = torch.optim.SGD(weights, RATE, MOMENTUM)
    x, y = (torch.from_numpy(a).to(device) for a in data(case))

    def layer(h, w):
        z = h @ w
        return scale * (z + epsilon * gelu(z)) + shift

    layer = torch.compile(layer) if compiled == "layer" else layer

    def loss(weights, h, y):
        for w in weights:
            h = layer(h, w)
        return mse_loss(h, y)

    loss = torch.compile(loss) if compiled == "network" else loss

    def train():
        optimizer.zero_grad()
        loss(weights, x, y).backward()
        optimizer.step()

    return Training(recorded(torch, train) if graph else train)


def recorded(torch, train):
    """What replays a step, after some that were not recorded."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            train()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train()
    return graph.replay


def ours(backend, jit=True, **kwargs):
    return Contender(backend, functools.partial(keras_model, jit=jit, **kwargs))


def shallow(case):
    """Not where compiling layer by layer takes hours."""
    return case.depth <= 200


def on_gpu(case):
    return case.on_gpu


def wide(case):
    """Where the matrix products, and not the loop, take the time."""
    return case.units >= 100


CONTENDERS = {
    "ours, TensorFlow XLA": ours("tensorflow"),
    "ours, TensorFlow": ours("tensorflow", jit=False),
    "ours, JAX": ours("jax"),
    "ours, TensorFlow XLA, orthogonal": ours("tensorflow", orthogonal=True),
    "ours, TensorFlow, orthogonal": ours(
        "tensorflow", jit=False, orthogonal=True
    )._replace(takes_part=wide),
    "ours, JAX, orthogonal": ours("jax", orthogonal=True)._replace(takes_part=wide),
    REFERENCE: Contender("jax", jax_scan, JAX),
    f"{REFERENCE}, unroll=16": Contender(
        "jax", functools.partial(jax_scan, unroll=16), JAX, on_gpu
    ),
    "PyTorch loop": Contender("torch", torch_loop, TORCH),
    "torch.compile": Contender(
        "torch", functools.partial(torch_loop, compiled="network"), TORCH, shallow
    ),
    "PyTorch, CUDA graph": Contender(
        "torch",
        functools.partial(torch_loop, compiled="layer", graph=True),
        TORCH,
        on_gpu,
    ),
    "keras.Sequential": ours("tensorflow", stacked=False)._replace(takes_part=shallow),
}


# What is made of the records.


def narrow(cases):
    """The cases of the width that has most depths, by depth."""
    widths = [units for _, units, _ in cases]
    return sorted(c for c in cases if c[1] == max(widths, key=widths.count))


def table(records):
    """The medians, in Markdown."""
    cases = _workers.cases(records)
    ends = dict.fromkeys((narrow(cases)[0], narrow(cases)[-1]))
    heads = ["", *(f"{depth:,} x {units}" for depth, units, _ in cases)]
    heads += [f"first step, {depth:,} x {units}" for depth, units, _ in ends]
    lines = []
    for name in dict.fromkeys(row["contender"] for row in records):
        line = [cell(cases[c].get(name), "step_microseconds_per_layer") for c in cases]
        line += [cell(cases[c].get(name), "first_step_seconds") for c in ends]
        lines.append([name, *line])
    return markdown(heads, lines)


def cell(row, field):
    if row is None:
        return ""
    if field not in row:
        return row["failed"] if row["failed"].startswith("more than") else "failed"
    return f"{significant(row[field]):,.10g}" + (
        " s" if field.endswith("seconds") else " µs"
    )


def figure(records, path):
    """Draws the first step and the others against depth."""
    from keras_bsnn import plots  # not at the top: it imports a framework

    if all("failed" in row for row in records):
        return
    cases = _workers.cases(records)
    names = dict.fromkeys(row["contender"] for row in records)
    fields = ("first_step_seconds", "step_microseconds_per_layer")
    titles = ("first step, with compilation: seconds", "each step: µs per layer")
    with plots.figure(path, rows=2, size=(7, 8)) as panels:
        for panel, field, title in zip(panels, fields, titles, strict=True):
            for name, marker in zip(names, itertools.cycle(MARKERS), strict=False):
                rows = (cases[c].get(name, {}) for c in narrow(cases))
                points = [(row["depth"], row[field]) for row in rows if field in row]
                label = name if points else None
                points = np.reshape(points, (-1, 2)).T
                panel.plot(*points, marker=marker, label=label)
            panel.set(xscale="log", yscale="log", title=title)
        panels[-1].set_xlabel(f"layers of {narrow(cases)[0][1]} units")
        plots.legend_above(panels, ncols=2)


EXPERIMENT = Experiment(
    __file__,
    run,
    table,
    rows=lambda args: [_workers.case(text) for text in args.cases],
    figure=figure,
    options={
        **_workers.options(CONTENDERS, seconds=20.0),
        **{"cases": [*CASES], "steps": 30},
    },
)

if __name__ == "__main__":
    _workers.main(EXPERIMENT, CONTENDERS)
