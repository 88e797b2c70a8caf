"""The singular values of orthogonal convolutions, before and after training.

    for backend in tensorflow jax; do
        KERAS_BACKEND=$backend python benchmarks/convolution_orthogonality.py \\
            --page docs/results/convolution.md
    done

`OrthogonalConv2D(channels)` alone, or three in a `DepthStack`, is trained to random
targets for `--steps` steps, each with a batch of its own. Recorded is the largest
`|s - 1|` of the singular values `s` of the whole operator, of all layers one after the
other, without bias and activation: its matrix has the responses to all pixels as rows,
which are computed in float32 from the weights as they are.
"""

import keras
import numpy as np
from runner import BACKENDS, Choice, Experiment, markdown, tensorflow_first

from keras_bsnn import manifolds, optimizers
from keras_bsnn.layers import DepthStack, OrthogonalConv2D

OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.3, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "Muon": lambda: keras.optimizers.Muon(0.03),
    "StiefelMuon": lambda: optimizers.StiefelMuon(0.1),
}
DEPTHS = {"alone": None, "stack of 3": 3}


def run(args, layer, optimizer, policy, jit):
    model, start, linear = trained(args, layer, optimizer, policy, jit)
    moved = zip(start, linear.get_weights(), strict=True)
    found = {
        **{"steps": int(model.optimizer.iterations), "largest_error": error(linear)},
        "moved": max(float(np.abs(new - old).max()) for old, new in moved),
    }
    linear.set_weights(start)
    return {**found, "before": error(linear)}


def trained(args, layer, optimizer, policy, jit):
    """A model, its matrices before training, and its linear part, in float32."""
    keras.utils.set_random_seed(args.seed)
    shape = (args.size, args.size, args.channels)

    def make(dtype, **arguments):
        block = OrthogonalConv2D(args.channels, dtype=dtype, **arguments)
        count = DEPTHS[layer]
        hidden = DepthStack(block, count, dtype=dtype) if count else block
        return keras.Sequential([keras.Input(shape), hidden])

    model = make(policy, activation="gp_tanh")
    model.compile(OPTIMIZERS[optimizer](), "mse", jit_compile=jit)
    linear = make("float32", use_bias=False)  # a bias would only be rounded
    linear.compile(jit_compile=keras.backend.backend() == "jax")
    start = matrices(model)
    count = args.steps * args.batch_size
    random = np.random.default_rng(args.seed)
    x, y = random.standard_normal((2, count, *shape), dtype="float32")
    model.fit(x, y, args.batch_size, shuffle=False, verbose=0)
    linear.set_weights(matrices(model))
    return model, start, linear


def matrices(model):
    kernels = manifolds.constrained(model.trainable_variables)
    return [keras.ops.convert_to_numpy(kernel) for kernel, _ in kernels]


def error(linear):
    """The largest distance to 1 of a singular value of a linear model."""
    shape = linear.input_shape[1:]
    size = int(np.prod(shape))
    pixels = np.eye(size, dtype="float32").reshape(size, *shape)
    responses = linear.predict(pixels, batch_size=size, verbose=0)
    matrix = responses.reshape(size, -1).astype("float64")
    return float(np.abs(np.linalg.svd(matrix, compute_uv=False) - 1).max())


def table(records):
    """A column for each backend, with XLA and without."""
    keys = ("layer", "optimizer", "policy")
    ways = dict.fromkeys((row["backend"], row["jit"]) for row in records)
    heads = ["", "optimizer", "policy", "before"]
    heads += [BACKENDS[name] + (", jit" if jit else ", no jit") for name, jit in ways]
    rows = {}
    for row in records:
        found = rows.setdefault(tuple(row[key] for key in keys), {})
        found[row["backend"], row["jit"]] = row
    lines = []
    for key, found in rows.items():
        before = max(row["before"] for row in found.values())
        after = (found.get(way, {}).get("largest_error") for way in ways)
        cells = ("" if value is None else f"{value:.0e}" for value in after)
        lines.append([*key, f"{before:.0e}", *cells])
    return markdown(heads, lines, left=3)


EXPERIMENT = Experiment(
    __file__,
    run,
    table,
    rows={
        **{"layer": "layers", "optimizer": "optimizers"},
        **{"policy": "policies", "jit": "jits"},
    },
    options={
        "layers": Choice(DEPTHS),
        "optimizers": Choice(OPTIMIZERS),
        "policies": Choice(["float32", "mixed_bfloat16"]),
        "jits": [1, 0],  # whether XLA compiles the step
        **{"channels": 4, "size": 4, "batch_size": 8, "steps": 200, "seed": 0},
    },
    record="convolution_orthogonality_{backend}.json",
    arrange=tensorflow_first,
)

if __name__ == "__main__":
    EXPERIMENT.main()
