"""Whether the numbers of an accelerator are right, whatever the precision of products.

    KERAS_BACKEND=jax python benchmarks/correctness.py

Products in float32 are rounded to TF32 on recent GPUs, and users ask for bfloat16. What
keeps kernels orthogonal must not be: each check is made under JAX's `--precisions`, and
has a largest value, in float64 on the CPU, next to the bound that it must be below. The
table says which is not. Outputs and gradients are compared with those of the CPU, at
the highest precision, relative to their largest entry.
"""

import functools
import warnings

import jax
import keras
import numpy as np
from runner import Choice, Experiment, columns

from keras_bsnn import callbacks, constraints, layers, manifolds, models, optimizers
from keras_bsnn.ops import orthogonal

SHAPES = ((8, 64, 64), (2, 300, 300), (4, 100, 30), (4, 30, 100))
BOUND = 1e-5  # of errors, and of distances to the nearest matrix


def run(args, check, precision):
    bound, largest = CHECKS[check]
    with jax.default_matmul_precision(precision):
        value = largest(args)
    return {
        **{"device": jax.devices()[0].device_kind, "largest": float(value)},
        **{"bound": bound, "is_right": bool(value < bound)},
    }


# The matrices.


def error(matrix):
    """The orthogonality error of kernels, in float64."""
    w = np.asarray(matrix, "float64")
    w = np.swapaxes(w, -1, -2) if w.shape[-2] < w.shape[-1] else w
    return np.abs(np.swapaxes(w, -1, -2) @ w - np.eye(w.shape[-1])).max()


def nearest(matrix):
    u, _, vh = np.linalg.svd(np.asarray(matrix, "float64"), full_matrices=False)
    return u @ vh


def perturbed(size):
    """Orthogonal matrices, and each with noise of an operator norm near `size`."""
    random = np.random.default_rng(0)
    for shape in SHAPES:
        start = nearest(random.standard_normal(shape))
        noise = random.standard_normal(shape) / (2 * np.sqrt(max(shape)))
        yield (start + size * noise).astype("float32")


def retracted(args, function, size, measure):
    return max(
        measure(function(keras.ops.convert_to_tensor(w)), w) for w in perturbed(size)
    )


def of_error(result, matrix):
    return error(result)


def of_distance(result, matrix):
    return np.abs(np.asarray(result, "float64") - nearest(matrix)).max()


# The models.


def data(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype="float32")


class Errors(keras.callbacks.Callback):
    """The largest orthogonality error of a kernel after any step."""

    largest = 0.0

    def on_train_batch_end(self, batch, logs=None):
        kernels = manifolds.constrained(self.model.trainable_variables)
        self.largest = max(self.largest, *(error(kernel) for kernel, _ in kernels))


def of_training(args, make, policy):
    """The largest error in 100 steps; infinite if `Retract` finds a kernel to mend."""
    keras.config.set_dtype_policy(policy)
    model = models.bsnn_mlp(40, 64, "relu", input_shape=(28, 28), seed=0)
    keras.config.set_dtype_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(make(), loss)
    labels = np.random.default_rng(1).integers(0, 10, 1600)
    errors = Errors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = {"callbacks": [callbacks.Retract(), errors], "verbose": 0}
        model.fit(data(1600, 28, 28), labels, 32, epochs=2, **given)
    warned = [w for w in caught if issubclass(w.category, UserWarning)]
    return float("inf") if warned else errors.largest


def against_cpu(args, make, shape):
    """The largest difference of outputs and gradients, relative to the largest."""
    layer = make()
    layer.build(shape)
    state = layer.trainable_variables, layer.non_trainable_variables
    state = [[v.value for v in variables] for variables in state]

    def loss(trainable, others, x):
        y, _ = layer.stateless_call(trainable, others, x)
        return keras.ops.mean(keras.ops.square(y - 1)), y

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 2), has_aux=True))
    results = []
    with jax.default_matmul_precision("highest"):
        for device in (jax.devices()[0], jax.devices("cpu")[0]):
            results.append(step(*jax.device_put((*state, data(*shape)), device)))
    pairs = zip(*map(jax.tree.leaves, jax.device_get(results)), strict=True)
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


# The checks: a bound, and a function of the arguments that returns the largest value.


def of_matrices():
    for name in ("newton_schulz", "cayley", "polar", "qr"):
        function = getattr(orthogonal, name)
        check = functools.partial(retracted, function=function, size=0.01)
        yield f"{name}: error", (BOUND, functools.partial(check, measure=of_error))
        if name != "qr":
            check = functools.partial(check, measure=of_distance)
            yield f"{name}: distance to the nearest", (BOUND, check)
    for size in (1.0, 1e6):
        guard = functools.partial(
            retracted, function=constraints.Orthogonal(), size=size, measure=of_error
        )
        yield f"guard after a step of norm {size:g}: error", (BOUND, guard)


OPTIMIZERS = {
    "StiefelMuon": (BOUND, lambda: optimizers.StiefelMuon(0.1)),
    "SGD": (1e-4, lambda: keras.optimizers.SGD(0.01, momentum=0.9)),
}
LAYERS = {
    "DepthStack of OrthogonalDense": (
        lambda: layers.DepthStack(layers.OrthogonalDense(64, "gp_tanh"), 50),
        (32, 64),
    ),
    "DepthStack of BatchNormDense": (
        lambda: layers.DepthStack(layers.BatchNormDense(64), 50),
        (128, 64),
    ),
    "DepthStack of ROAFDense": (
        lambda: layers.DepthStack(layers.ROAFDense(64, alpha=0.98), 50),
        (32, 64),
    ),
    "ROAF": (lambda: layers.ROAF(64, alpha=0.99), (16, 200, 4)),
}
CHECKS = {
    **dict(of_matrices()),
    **{
        f"{name}, {policy}: error after any step": (
            bound,
            functools.partial(of_training, make=make, policy=policy),
        )
        for policy in ("float32", "mixed_bfloat16")
        for name, (bound, make) in OPTIMIZERS.items()
    },
    **{
        f"{name}, against the CPU": (
            1e-3,
            functools.partial(against_cpu, make=make, shape=shape),
        )
        for name, (make, shape) in LAYERS.items()
    },
}
TABLE = {
    **{"": "{check}", "precision of products": "{precision}"},
    **{"largest": "{largest:.1e}", "below": "{bound:.0e}"},
    "is right": lambda row: "yes" if row["is_right"] else "**no**",
}


EXPERIMENT = Experiment(
    __file__,
    run,
    columns(TABLE, left=2),
    rows={"check": "checks", "precision": "precisions"},
    options={
        "checks": Choice(CHECKS),
        "precisions": Choice(["default", "bfloat16"]),
    },
)

if __name__ == "__main__":
    EXPERIMENT.main()
