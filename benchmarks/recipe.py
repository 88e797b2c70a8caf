"""What a step of training costs with each optimizer, beside the network's own cost.

    python benchmarks/recipe.py --page docs/results/speed.md

`bsnn_mlp`, ReLU, on MNIST, with each optimizer at the rate that trains it best at 100
layers (`examples/reproduce/bsnn_optimizers.py`). It is timed after `--warm-up` steps,
when weights move as they do in training, in a process of its own; the contenders run in
turn, `--repeats` times. `--dataset teacher`, which needs no TensorFlow, is the task of
a linear teacher on normal inputs.

Reported are the mean of the steps, which is what a user pays, also where retractions
are rare; its ratio to SGD without a constraint on the same framework; the slowest step;
the share of the kernels that are retracted in one more step; and the largest
orthogonality error after any step, or after the last for PyTorch. Two of PyTorch are
next to ours: its Muon on its own parametrization of orthogonal matrices, and POGO. They
need the extra `peers`.
"""

import functools

import _workers
import numpy as np
import retraction
from _workers import TORCH, Contender, Training
from runner import Experiment, columns

FIELDS = ("mean_step_seconds", "slowest_step_seconds", "largest_error", "retracted")
PLAIN = "SGD, no constraint"
TEACHER = "teacher"
PEERS_WARM_UP = 20  # steps: what those of PyTorch cost does not change after the first


def run(args, **case):
    rows = _workers.compare(
        *(__file__, CONTENDERS, args, FIELDS),
        **{**case, "dataset": args.dataset, "warm_up": args.warm_up},
        constants=retraction.shape(case["depth"], "relu"),
    )
    times = {row["contender"]: row.get("mean_step_seconds") for row in rows}
    for row in rows:
        plain = times.get(f"{PLAIN}, {row['contender'].rpartition(', ')[2]}")
        step = row.get("mean_step_seconds")
        row["ratio"] = step / plain if step and plain else None
    return rows


def error(row):
    return f"{row['largest_error']:.0e}" if "largest_error" in row else ""


def slowest(row):
    seconds = row.get("slowest_step_seconds")
    return f"{1e3 * seconds:.0f} ms" if seconds else ""


def retracted(row):
    return f"{row['retracted']:.0%}" if row.get("retracted") is not None else ""


TABLE = {
    "": "{contender}",
    "layers x units, batch": "{depth} x {units}, {batch_size}",
    "step": lambda row: row.get("failed") or f"{1e3 * row['mean_step_seconds']:.0f} ms",
    "against SGD": lambda row: f"{row['ratio']:.2f}" if row.get("ratio") else "",
    **{"slowest": slowest, "retracted": retracted},
    "largest error": error,
}


# What the workers build.


def build(case, optimizer, jit=True, tangent_gradient=False, constrained=True):
    """A model that has been trained for a while, and the batches that are to follow."""
    import keras
    from _errors import largest_error

    from keras_bsnn import manifolds, models

    keras.utils.set_random_seed(0)
    (x, y), shape, classes = data(case)
    model = models.bsnn_mlp(
        *(case.depth, case.units, "relu"),
        classes=classes,
        input_shape=shape,
        seed=0,
        tangent_gradient=tangent_gradient,
    )
    kernels = list(manifolds.constrained(model.trainable_variables))
    if not constrained:
        for kernel, _ in kernels:
            kernel.constraint = None
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(keras), loss, jit_compile=jit)
    count = case.warm_up * case.batch_size
    settings = {"batch_size": case.batch_size, "shuffle": False, "verbose": 0}
    model.fit(x[:count], y[:count], **settings)
    errors = []

    def measure():
        errors.append(largest_error(kernels))

    def report():
        batch = x[: case.batch_size], y[: case.batch_size]
        share = retracted_share(model, kernels, batch)
        return {"largest_error": max(errors), "retracted": share}

    return Training(
        model=model, data=(x[count:], y[count:]), after=measure, report=report
    )


def retracted_share(model, kernels, batch):
    """Of all kernels, those that one more step would change and have retracted."""
    from keras import ops

    from keras_bsnn import constraints
    from keras_bsnn.ops import orthogonal
    from keras_bsnn.optimizers import StiefelMuon

    retracts_itself = isinstance(model.optimizer, StiefelMuon)
    before = [ops.copy(kernel) for kernel, _ in kernels]
    with constraints.upheld():  # the constraint, which would hide what it did
        model.make_train_function(force=True)
        model.train_on_batch(*batch)
    shares = []
    for (kernel, _), old in zip(kernels, before, strict=True):
        is_retracted = ops.any(kernel != old, axis=(-2, -1))
        tolerance = getattr(kernel.constraint, "tolerance", 1.0)
        if tolerance and not retracts_itself:
            is_retracted &= orthogonal.estimated_error(kernel) > tolerance
        shares.append(float(ops.mean(ops.cast(is_retracted, "float32"))))
    return np.mean(shares)


def data(case):
    """Batches for all steps, the shape of a sample and the number of classes."""
    batches = case.warm_up + case.steps + 1
    if case.dataset == TEACHER:
        random = np.random.default_rng(0)
        x = random.standard_normal((batches * case.batch_size, 784), dtype=np.float32)
        labels = np.argmax(x @ random.standard_normal((784, 10)), axis=1)
        return (x, labels), (784,), 10
    from keras_bsnn import datasets

    images = datasets.IMAGE_SETS[case.dataset]
    loaded = datasets.load(case.dataset, "train", case.batch_size, seed=0).repeat()
    pairs = zip(*loaded.take(batches).as_numpy_iterator(), strict=True)
    return map(np.concatenate, pairs), images.shape, images.classes


def sgd(keras, rate=0.01):
    return keras.optimizers.SGD(rate, momentum=0.9)


def stiefel(keras, inner, rate):
    from keras_bsnn.optimizers import Stiefel

    return Stiefel(getattr(keras.optimizers, inner)(rate))


def stiefel_muon(keras, **kwargs):
    from keras_bsnn.optimizers import StiefelMuon

    return StiefelMuon(0.1, **kwargs)


def torch_model(case, network, optimizer):
    """The same network in PyTorch.

    Args:
        case: the size.
        network: as in `retraction.torch_model`.
        optimizer: function of the orthogonal parameters and of the others; a list of
            optimizers.
    """
    import torch
    from torch.nn.functional import cross_entropy, relu

    torch.manual_seed(0)
    epsilon, scale, shift = case.constants
    (x, y), _, classes = data(case)
    x = torch.from_numpy(x.reshape(len(x), -1))
    batches = iter(
        zip(
            x.split(case.batch_size),
            torch.from_numpy(y.astype("int64")).split(case.batch_size),
            strict=True,
        )
    )
    first = torch.nn.Linear(x.shape[1], case.units)
    last = torch.nn.Linear(case.units, classes)
    normal = torch.randn(case.depth, case.units, case.units)
    kernels, parameters = network(torch, torch.linalg.qr(normal)[0])
    others = [*first.parameters(), *last.parameters()]
    optimizers = optimizer([*parameters], others)

    def train():
        images, labels = next(batches)
        for each in optimizers:
            each.zero_grad()
        h = first(images)
        h = case.units**0.5 * h / h.norm(dim=1, keepdim=True)
        for w in kernels():
            z = h @ w
            h = scale * (z + epsilon * relu(z)) + shift
        cross_entropy(last(h), labels).backward()
        for each in optimizers:
            each.step()

    def report():
        """Once, at the end: NumPy's threads would be in the way of PyTorch's."""
        with torch.no_grad():
            errors = [(w.T @ w - torch.eye(len(w))).abs().max() for w in kernels()]
        share = float(network is not retraction.plain_parameters)  # all or none
        return {"largest_error": float(max(errors)), "retracted": share}

    for _ in range(min(case.warm_up, PEERS_WARM_UP)):
        train()
    return Training(train, report=report)


def torch_sgd(parameters, others):
    import torch

    return [torch.optim.SGD([*parameters, *others], 1e-3, momentum=0.9)]


def torch_muon(parameters, others):
    import torch

    return [torch.optim.Muon(parameters, 1e-3), *torch_sgd(others, [])]


def torch_pogo(parameters, others):
    return [retraction.pogo(parameters, 0.1, 0.9), *torch_sgd(others, [])]


OPTIMIZERS = {
    # At the rate of the next, it diverges.
    PLAIN: {"optimizer": functools.partial(sgd, rate=1e-3), "constrained": False},
    "SGD, tangent gradient": {"optimizer": sgd, "tangent_gradient": True},
    "Stiefel(Adam)": {"optimizer": functools.partial(stiefel, inner="Adam", rate=1e-3)},
    "Stiefel(Muon)": {"optimizer": functools.partial(stiefel, inner="Muon", rate=1e-3)},
    "StiefelMuon, period 1": {"optimizer": functools.partial(stiefel_muon, period=1)},
    "StiefelMuon": {"optimizer": stiefel_muon},
}
BACKENDS = {
    "TensorFlow XLA": ("tensorflow", True),
    "TensorFlow": ("tensorflow", False),
    "JAX": ("jax", True),
    "Keras on PyTorch": ("torch", False),
}
CONTENDERS = {
    f"{name}, {title}": Contender(
        backend, functools.partial(build, jit=jit, **settings)
    )
    for title, (backend, jit) in BACKENDS.items()
    for name, settings in OPTIMIZERS.items()
}
PEERS = {
    PLAIN: (retraction.plain_parameters, torch_sgd),
    "torch.optim.Muon, parametrizations.orthogonal": (
        functools.partial(retraction.parametrized, orthogonal_map="cayley"),
        torch_muon,
    ),
    "pogo-torch": (retraction.one_parameter, torch_pogo),
}
CONTENDERS |= {
    f"{name}, PyTorch": Contender(
        "torch",
        functools.partial(torch_model, network=network, optimizer=optimizer),
        TORCH,
    )
    for name, (network, optimizer) in PEERS.items()
}

EXPERIMENT = Experiment(
    __file__,
    run,
    columns(TABLE),
    rows=lambda args: [_workers.case(text) for text in args.sizes],
    options={
        **_workers.options(CONTENDERS, seconds=60.0),
        **{"sizes": ["200,128,128", "200,512,128"], "dataset": "mnist"},
        **{"steps": 60, "warm_up": 200},
    },
)

if __name__ == "__main__":
    _workers.main(EXPERIMENT, CONTENDERS)
