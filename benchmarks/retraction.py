"""What orthogonality costs in a deep network: ours, Keras' and PyTorch's, side by side.

    python benchmarks/retraction.py --page docs/results/speed.md

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

import functools

import _workers
import numpy as np
from _workers import TORCH, Contender, Training
from runner import Experiment, columns

CLASSES = 10
MOMENTUM = 0.9


def run(args, **case):
    rows = _workers.compare(
        *(__file__, CONTENDERS, args, ("steps", "last_error", "largest_error")),
        **{**case, "rate": args.learning_rate, "constants": shape(case["depth"])},
    )
    steps = {row["contender"]: row.get("step_seconds") for row in rows}
    for row in rows:
        step, plain = row.get("step_seconds"), steps.get(plain_of(row["contender"]))
        row["ratio"] = step / plain if step and plain else None
    return rows


def shape(depth, activation="gelu"):
    """`epsilon`, `scale`, `shift` of `phi`; less than 4 layers take that of 4."""
    from keras_bsnn.activations import DepthShaped

    shaped = DepthShaped(activation, max(depth, 4))
    return float(shaped.epsilon), float(shaped.scale), float(shaped.shift)


def plain_of(name):
    """The contender on the same framework that has no constraint."""
    ours = f"ours, plain, {name.rpartition(', ')[2]}"
    return ours if ours in CONTENDERS else "PyTorch, plain"


def ratio(row):
    return f"{row['ratio']:.2f}" if row.get("ratio") else ""


def error(row):
    return f"{row['largest_error']:.0e}" if "largest_error" in row else ""


TABLE = {
    "": "{contender}",
    "step": lambda row: row.get("failed") or f"{row['step_seconds']:.2f} s",
    "against plain": ratio,
    "largest error": error,
}


# What the workers build.


def data(case):
    """Inputs, labels and the fixed kernel of the logits: of all batches."""
    random = np.random.default_rng(0)
    samples = (case.steps + 1) * case.batch_size
    x = random.standard_normal((samples, case.units), dtype=np.float32)
    teacher = random.standard_normal((case.units, CLASSES), dtype=np.float32)
    labels = np.argmax(x @ teacher, axis=1)
    tall = case.units >= CLASSES
    q = np.linalg.qr(teacher if tall else teacher.T)[0]
    return x, labels, np.ascontiguousarray(q if tall else q.T)


def with_errors(kernels, **training):
    """A training that reports the errors after each step of kernels of a function."""
    errors = []

    def measure():
        largest = [np.abs(w.T @ w - np.eye(len(w.T))).max() for w in kernels()]
        errors.append(float(np.max(largest)))  # NaN if one is

    def report():
        return {"last_error": errors[-1], "largest_error": max(errors)}

    return Training(**training, after=measure, report=report)


def keras_model(case, jit, constraint=lambda: None, tangent=False):
    import keras

    from keras_bsnn.activations import DepthShaped
    from keras_bsnn.layers import DepthStack, OrthogonalDense

    keras.utils.set_random_seed(0)
    x, labels, logits = data(case)
    constants = dict(zip(("epsilon", "scale", "shift"), case.constants, strict=True))
    block = OrthogonalDense(
        case.units,
        DepthShaped("gelu", case.depth, **constants),
        use_bias=False,
        kernel_constraint=constraint(),
        tangent_gradient=tangent,
    )
    stack = DepthStack(block, case.depth)
    last = keras.layers.Dense(CLASSES, use_bias=False, trainable=False)
    model = keras.Sequential([keras.Input((case.units,)), stack, last])
    last.set_weights([logits])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(case.rate, MOMENTUM), loss, jit_compile=jit)

    def kernels():
        return keras.ops.convert_to_numpy(stack.weights[0])

    return with_errors(kernels, model=model, data=(x, labels))


def every_update():
    from keras_bsnn.constraints import Orthogonal

    return Orthogonal()


def tolerant():
    from keras_bsnn.constraints import Orthogonal

    return Orthogonal(steps=1, tolerance=5e-5)


def unit_norm():
    import keras

    return keras.constraints.UnitNorm(axis=0)


def plain_parameters(torch, kernels):
    parameters = [torch.nn.Parameter(w) for w in kernels]
    return lambda: parameters, parameters


def linear_layers(torch, kernels, constrain):
    """Those of `torch.nn.Linear`, each of them constrained."""
    layers = [torch.nn.Linear(len(w), len(w), bias=False) for w in kernels]
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.weight.data = kernel
        constrain(layer)
    modules = torch.nn.ModuleList(layers)
    return lambda: [layer.weight.T for layer in layers], modules.parameters()


def parametrized(torch, kernels, orthogonal_map):
    orthogonal = torch.nn.utils.parametrizations.orthogonal
    return linear_layers(
        torch, kernels, lambda x: orthogonal(x, "weight", orthogonal_map)
    )


def geotorch_parametrized(torch, kernels):
    def constrain(layer):
        import geotorch

        kernel = layer.weight.detach().clone()
        geotorch.orthogonal(layer, "weight")
        layer.weight = kernel

    return linear_layers(torch, kernels, constrain)


def one_parameter(torch, kernels):
    """As the manual of POGO asks for."""
    stacked = torch.nn.Parameter(kernels)
    return stacked.unbind, [stacked]


def pogo(parameters, lr, momentum):
    from pogo import POGO, base

    return POGO(parameters, base.SGD(momentum), lr)


def torch_model(case, network, optimizer=None):
    """A PyTorch network.

    Args:
        network: function of torch and the initial kernels; returns a function that
            computes the kernels, and the parameters.
        optimizer: function of the parameters, or `None` for SGD.
    """
    import torch
    from torch.nn.functional import cross_entropy, gelu

    torch.manual_seed(0)
    epsilon, scale, shift = case.constants
    x, labels, logits = map(torch.from_numpy, data(case))
    normal = torch.randn(case.depth, case.units, case.units)
    kernels, parameters = network(torch, torch.linalg.qr(normal)[0])
    optimizer = (optimizer or torch.optim.SGD)(
        parameters, lr=case.rate, momentum=MOMENTUM
    )
    split = (x.split(case.batch_size), labels.split(case.batch_size))
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

    return with_errors(current, step=train)


def on_keras(kind, names=("TensorFlow XLA", "TensorFlow", "JAX"), **kwargs):
    """Contenders of Keras, one for each way to run it."""
    return {
        f"{kind}, {name}": Contender(
            name.split()[0].lower(),
            functools.partial(keras_model, jit=name != "TensorFlow", **kwargs),
        )
        for name in names
    }


def on_torch(*arguments, **kwargs):
    network = functools.partial(*arguments, **kwargs)
    return Contender("torch", functools.partial(torch_model, network=network), TORCH)


XLA = ("TensorFlow XLA", "JAX")
CONTENDERS = {
    **on_keras("ours, plain"),
    **on_keras("ours, every update", XLA, constraint=every_update),
    **on_keras("ours, tolerance 5e-5", constraint=tolerant, tangent=True),
    **on_keras("keras UnitNorm (not orthogonal)", XLA[:1], constraint=unit_norm),
    "PyTorch, plain": on_torch(plain_parameters),
    **{
        f"PyTorch, parametrizations.orthogonal, {name}": on_torch(
            parametrized, orthogonal_map=name
        )
        for name in ("cayley", "householder", "matrix_exp")
    },
    "geotorch.orthogonal": on_torch(geotorch_parametrized),
    "pogo-torch": Contender(
        "torch",
        functools.partial(torch_model, network=one_parameter, optimizer=pogo),
        TORCH,
    ),
}

EXPERIMENT = Experiment(
    __file__,
    run,
    columns(TABLE),
    rows={"depth": "depth", "units": "units", "batch_size": "batch_size"},
    options={
        **_workers.options(CONTENDERS, seconds=120.0),
        **{"depth": 200, "units": 500, "batch_size": 128},
        **{"steps": 30, "learning_rate": 1e-3},
    },
)

if __name__ == "__main__":
    _workers.main(EXPERIMENT, CONTENDERS)
