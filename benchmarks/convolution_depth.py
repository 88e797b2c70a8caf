"""Stacks of orthogonal convolutions: the time to compile a step, and that of a step.

    python benchmarks/convolution_depth.py --page docs/results/convolution.md

`depth` convolutions of 3 x 3 with circular padding and no bias, each followed by
`DepthShaped("gelu", depth)`, are trained by SGD with momentum to random targets. Ours
is `DepthStack(OrthogonalConv2D(channels))`, whose matrices are retracted in each step
unless it says otherwise. Next to it is a `jax.lax.scan` by hand over plain
convolutions, without a constraint. Each contender has a process of its own, and they
run in turn.

`compile_seconds` is the first step, with tracing and compilation in it, minus the
median of the others. `--floor` measures, with JAX, what the products of ours and its
memory must take on the device, as benchmarks/floor.py does, in float32 as JAX
multiplies it.
"""

import functools

import _workers
import depth as dense
import numpy as np
from _workers import JAX, Contender, Training
from depth import MOMENTUM, RATE
from runner import Experiment, columns

KERNEL_SIZE = 3
REFERENCE = "jax.lax.scan of convolutions"
CASES = ("100,16,4,8", "10000,16,4,8")
SIZES = ("depth", "channels", "size", "batch_size")
DEEPEST_RATE = 1000  # layers with which rates are measured, for their memory


def case(text):
    return dict(zip(SIZES, map(int, text.split(",")), strict=True))


def run(args, depth, **sizes):
    given = {"depth": depth, **sizes}
    floor = floor_seconds(args, **given) if args.floor else None
    rows = _workers.compare(
        *(__file__, CONTENDERS, args, ["peak_memory_bytes"]),
        **{**given, "constants": dense.shape(depth)},
    )
    steps = {row["contender"]: row.get("step_seconds") for row in rows}
    for row in rows:
        if step := row.get("step_seconds"):
            row["compile_seconds"] = row["first_step_seconds"] - step
            row["step_microseconds_per_layer"] = 1e6 * step / depth
            row["ratio"] = steps.get(REFERENCE) and step / steps[REFERENCE]
            row["floor_seconds"] = floor
            row["floor_ratio"] = floor and step / floor
    return rows


def floor_seconds(args, depth, channels, size, batch_size):
    """The least time of a step of two matrices for each layer."""
    import floor

    places = batch_size * size**2
    rates = floor.rates(min(depth, DEEPEST_RATE), channels, places, args.rounds)
    weights, inputs = 2 * depth * channels**2, depth * places * channels
    operations = 3 * 2 * places * weights / max(rates.values())
    moved = 4 * (8 * weights + 2 * inputs) / floor.copied_bytes(args)
    return max(operations, moved)


# What is made of the records.


def arranged(records):
    """The compilation of each contender against that of its least depth."""

    def key(row):
        return tuple(row[name] for name in ("contender", *SIZES[1:]))

    least = {}
    for row in sorted(records, key=lambda row: -row["depth"]):
        least[key(row)] = row.get("compile_seconds")
    for row in records:
        first = least[key(row)]
        known = first and "compile_seconds" in row
        row["compile_ratio"] = row["compile_seconds"] / first if known else None
    return records


def optional(name, form):
    return lambda row: form.format(row[name]) if row.get(name) else ""


TABLE = {
    "": "{contender}",
    **{"layers": "{depth:,}", "images": "{batch_size} x {size} x {size} x {channels}"},
    "compilation": optional("compile_seconds", "{:.2f} s"),
    "against the least depth": optional("compile_ratio", "{:.2f}"),
    "step, per layer": lambda row: (
        row.get("failed") or f"{row['step_microseconds_per_layer']:.1f} µs"
    ),
    f"against {REFERENCE}": optional("ratio", "{:.2f}"),
    "against the floor": optional("floor_ratio", "{:.1f}"),
}


# What the workers build.


def data(case):
    """One batch of images and of targets."""
    shape = (2, case.batch_size, case.size, case.size, case.channels)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def keras_model(case, jit=True, **arguments):
    import keras

    from keras_bsnn.activations import DepthShaped
    from keras_bsnn.layers import DepthStack, OrthogonalConv2D

    keras.utils.set_random_seed(0)
    layer = OrthogonalConv2D(
        case.channels,
        KERNEL_SIZE,
        activation=DepthShaped("gelu", case.depth),
        use_bias=False,
        **arguments,
    )
    x = data(case)
    model = keras.Sequential([keras.Input(x.shape[2:]), DepthStack(layer, case.depth)])
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), "mse", jit_compile=jit)
    return Training(model=model, data=np.tile(x, (1, case.steps + 1, 1, 1, 1)))


def jax_scan(case, unroll=1):
    """Kernels that start with an orthogonal matrix at the tap in the middle."""
    import jax
    import jax.numpy as jnp

    epsilon, scale, shift = case.constants
    margin = KERNEL_SIZE // 2
    margins = ((0, 0), (margin, margin), (margin, margin), (0, 0))

    def layer(h, w):
        z = jax.lax.conv_general_dilated(
            jnp.pad(h, margins, mode="wrap"),
            w,
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        gelu = jax.nn.gelu(z, approximate=False)
        return scale * (z + epsilon * gelu) + shift, None

    def loss(w, x, y):
        return jnp.mean((jax.lax.scan(layer, x, w, unroll=unroll)[0] - y) ** 2)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w, velocity, x, y):
        gradient = jax.grad(loss)(w, x, y)
        velocity = MOMENTUM * velocity - RATE * gradient
        return w + velocity, velocity

    normal = np.random.default_rng(1).standard_normal((case.channels,) * 2)
    shape = (case.depth, KERNEL_SIZE, KERNEL_SIZE, case.channels, case.channels)
    w = jnp.zeros(shape).at[:, margin, margin].set(np.linalg.qr(normal)[0])
    x, y = map(jnp.array, data(case))
    state = jax.block_until_ready([w, jnp.zeros_like(w)])
    del w

    def train():
        state[:] = jax.block_until_ready(step(*state, x, y))

    return Training(train)


def ours(backend, jit=True, **arguments):
    return Contender(backend, functools.partial(keras_model, jit=jit, **arguments))


CONTENDERS = {
    "ours, TensorFlow XLA": ours("tensorflow"),
    "ours, TensorFlow": ours("tensorflow", jit=False),
    "ours, JAX": ours("jax"),
    "ours, no constraint, JAX": ours("jax", kernel_constraint=None),
    "ours as a convolution, JAX": ours("jax", implementation="conv"),
    "ours, TensorFlow XLA, huge pages": _workers.on_huge_pages(ours("tensorflow")),
    "ours, JAX, huge pages": _workers.on_huge_pages(ours("jax")),
    REFERENCE: Contender("jax", jax_scan, JAX),
    f"{REFERENCE}, unroll=16": Contender(
        "jax",
        functools.partial(jax_scan, unroll=16),
        JAX,
        takes_part=lambda case: case.on_gpu,
    ),
}

EXPERIMENT = Experiment(
    __file__,
    run,
    columns(TABLE),
    rows=lambda args: [case(text) for text in args.cases],
    options={
        **_workers.options(CONTENDERS, seconds=20.0),
        **{"cases": [*CASES], "steps": 20},
        **{"floor": False, "rounds": 10, "megabytes": 1024},
    },
    arrange=arranged,
)

if __name__ == "__main__":
    _workers.main(EXPERIMENT, CONTENDERS)
