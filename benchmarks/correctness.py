"""Whether the numbers of an accelerator are right, whatever the precision of products.

    KERAS_BACKEND=jax python benchmarks/correctness.py

Products in float32 are rounded to TF32 on recent GPUs, and users ask for bfloat16. What
keeps kernels orthogonal must not be: matrices are retracted and networks are trained
under JAX's precisions "default", which is TF32 there, and "bfloat16". Each check has a
largest value, found in float64 on the CPU, next to the bound that it must be below; the
table says which is not. Outputs and gradients are compared with those of the CPU, at
the precision "highest", relative to their largest entry.
"""

import functools
import itertools
import warnings
from argparse import Namespace

import convolution_orthogonality
import jax
import keras
import numpy as np
from _errors import Errors
from runner import Choice, Experiment, columns

from keras_bsnn import callbacks, constraints, layers, models, optimizers
from keras_bsnn.ops import orthogonal

SHAPES = ((8, 64, 64), (2, 300, 300), (4, 100, 30), (4, 30, 100))
BOUND = 1e-5  # of errors, and of distances to the nearest matrix


def run(args, check, precision):
    bound, largest, _ = CHECKS[check]
    with jax.default_matmul_precision(precision):
        value = largest()
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


def retracted(function, size, measure):
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


def largest_error(kernels):
    """Of pairs of a kernel and its manifold, in float64."""
    return max(error(kernel) for kernel, _ in kernels)


def of_training(make, policy):
    """The largest error in 100 steps; infinite if `Retract` finds a kernel to mend."""
    keras.config.set_dtype_policy(policy)
    model = models.bsnn_mlp(40, 64, "relu", input_shape=(28, 28), seed=0)
    keras.config.set_dtype_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(make(), loss)
    labels = np.random.default_rng(1).integers(0, 10, 1600)
    errors = Errors(largest_error)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = {"callbacks": [callbacks.Retract(), errors], "verbose": 0}
        model.fit(data(1600, 28, 28), labels, 32, epochs=2, **given)
    warned = [w for w in caught if issubclass(w.category, UserWarning)]
    return float("inf") if warned else max(errors.errors)


def against_cpu(make, shape):
    """The largest difference of outputs and gradients, relative to the largest."""
    layer = make()
    devices = (jax.devices()[0], jax.devices("cpu")[0])
    return difference(*(outputs_and_gradients(layer, shape, d) for d in devices))


def of_implementations(make, shape):
    """The same between products with shifts and the convolution of the device."""
    layer = make()
    layer.build(shape)
    config = {**layer.get_config(), "implementation": "conv"}
    other = type(layer).from_config(config)
    other.build(shape)
    other.set_weights(layer.get_weights())
    pair = (layer, other)
    found = [outputs_and_gradients(x, shape, jax.devices()[0]) for x in pair]
    return difference(*found)


def outputs_and_gradients(layer, shape, device):
    if not layer.built:
        layer.build(shape)
    state = layer.trainable_variables, layer.non_trainable_variables
    state = [[v.value for v in variables] for variables in state]

    def loss(trainable, others, x):
        y, _ = layer.stateless_call(trainable, others, x)
        return keras.ops.mean(keras.ops.square(y - 1)), y

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 2), has_aux=True))
    found = step(*jax.device_put((*state, data(*shape)), device))
    return jax.tree.leaves(jax.device_get(found))


def difference(found, others):
    pairs = zip(found, others, strict=True)
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


def of_operator(optimizer, policy):
    """That of the singular values of three convolutions after 100 steps."""
    sizes = {"channels": 16, "size": 8, "batch_size": 32, "steps": 100, "seed": 0}
    given = Namespace(**sizes)
    *_, linear = convolution_orthogonality.trained(
        given, "stack of 3", optimizer, policy, jit=True
    )
    with jax.default_matmul_precision("highest"):
        return convolution_orthogonality.error(linear)


# The checks: a bound, a function that returns the largest value, and the precisions of
# products.


def of_matrices():
    for name in ("newton_schulz", "cayley", "polar", "qr"):
        function = getattr(orthogonal, name)
        check = functools.partial(retracted, function=function, size=0.01)
        yield f"{name}: error", functools.partial(check, measure=of_error)
        if name != "qr":
            check = functools.partial(check, measure=of_distance)
            yield f"{name}: distance to the nearest", check
    for size in (1.0, 1e6):
        check = functools.partial(retracted, function=constraints.Orthogonal())
        check = functools.partial(check, size=size, measure=of_error)
        yield f"guard after a step of norm {size:g}: error", check


def of_optimizers():
    bounds = {"StiefelMuon": BOUND, "SGD": 1e-4}
    makers = {
        "StiefelMuon": lambda: optimizers.StiefelMuon(0.1),
        "SGD": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    }
    for policy, (name, make) in itertools.product(
        ("float32", "mixed_bfloat16"), makers.items()
    ):
        check = functools.partial(of_training, make=make, policy=policy)
        yield f"{name}, {policy}: error after any step", bounds[name], check


def of_layers():
    def stack(layer):
        return lambda: layers.DepthStack(layer(), 50)

    made = {
        "OrthogonalDense": stack(lambda: layers.OrthogonalDense(64, "gp_tanh")),
        "BatchNormDense": stack(lambda: layers.BatchNormDense(64)),
        "ROAFDense": stack(lambda: layers.ROAFDense(64, alpha=0.98)),
    }
    for name, make in made.items():
        check = functools.partial(against_cpu, make=make, shape=(128, 64))
        yield f"stack of {name}, against the CPU", check
    check = functools.partial(
        against_cpu, make=lambda: layers.ROAF(64, alpha=0.99), shape=(16, 200, 4)
    )
    yield "ROAF, against the CPU", check


def of_convolutions():
    def convolution(**arguments):
        return layers.OrthogonalConv2D(64, activation="gp_tanh", **arguments)

    def stack():
        return layers.DepthStack(convolution(), 50)

    for name, arguments in {
        "OrthogonalConv2D": {},
        "OrthogonalConv2D, strides 2": {"kernel_size": 4, "strides": 2},
    }.items():
        make = functools.partial(convolution, **arguments)
        check = functools.partial(of_implementations, make, (32, 8, 8, 64))
        yield f"{name}, as products and as a convolution", check
    check = functools.partial(against_cpu, stack, (32, 8, 8, 64))
    yield "stack of OrthogonalConv2D, against the CPU", check


def of_operators():
    for policy, name in itertools.product(
        ("float32", "mixed_bfloat16"), ("StiefelMuon", "SGD")
    ):
        check = functools.partial(of_operator, name, policy)
        yield f"singular values of convolutions, {name}, {policy}", check


ROUNDED = ("default", "bfloat16")
CHECKS = {
    **{name: (BOUND, check, ROUNDED) for name, check in of_matrices()},
    **{name: (bound, check, ROUNDED) for name, bound, check in of_optimizers()},
    **{name: (1e-4, check, ("highest",)) for name, check in of_layers()},
    **{name: (1e-4, check, ("highest",)) for name, check in of_convolutions()},
    **{name: (BOUND, check, ROUNDED) for name, check in of_operators()},
}
EXPERIMENT = Experiment(
    __file__,
    run,
    columns(
        {
            **{"": "{check}", "precision of products": "{precision}"},
            **{"largest": "{largest:.1e}", "below": "{bound:.0e}"},
            "is right": lambda row: "yes" if row["is_right"] else "**no**",
        },
        left=2,
    ),
    rows=lambda args: [
        {"check": check, "precision": precision}
        for check in args.checks
        for precision in CHECKS[check][2]
    ],
    options={"checks": Choice(CHECKS)},
)

if __name__ == "__main__":
    EXPERIMENT.main()
