"""What a step of training costs with each optimizer, beside the network's own cost.

    python benchmarks/recipe.py --readme README.md

`bsnn_mlp`, ReLU, on MNIST, with each optimizer at the rate that trains it best at 100
layers (`examples/reproduce/bsnn_optimizers.py`). It is timed after `--warm-up` steps,
when weights move as they do in training, in a process of its own; the contenders run in
turn, `--repeats` times. `--dataset teacher`, which needs no TensorFlow, is the task of
a linear teacher on normal inputs.

Reported are the mean of the steps, which is what a user pays, also where retractions
are rare; its ratio to SGD without a constraint (which diverges at this rate, at the
same speed); the slowest step; and the largest orthogonality error after any step.
"""

import functools

import _workers
import numpy as np
from _workers import Contender, Training
from runner import Experiment, columns

FIELDS = ("mean_step_seconds", "slowest_step_seconds", "largest_error")
PLAIN = "SGD, no constraint"
TEACHER = "teacher"


def run(args, **case):
    rows = _workers.compare(
        *(__file__, CONTENDERS, args, FIELDS),
        **{**case, "dataset": args.dataset, "warm_up": args.warm_up},
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


TABLE = {
    "": "{contender}",
    "layers x units, batch": "{depth} x {units}, {batch_size}",
    "step": lambda row: row.get("failed") or f"{1e3 * row['mean_step_seconds']:.0f} ms",
    "against SGD": lambda row: f"{row['ratio']:.2f}" if row.get("ratio") else "",
    "slowest": slowest,
    "largest error": error,
}


# What the workers build.


def build(case, optimizer, jit=True, tangent_gradient=False, constrained=True):
    """A model that has been trained for a while, and the batches that are to follow."""
    import keras

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
        errors.append(max(float(np.max(m.error(kernel))) for kernel, m in kernels))

    return Training(
        model=model,
        data=(x[count:], y[count:]),
        after=measure,
        report=lambda: {"largest_error": max(errors)},
    )


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


OPTIMIZERS = {
    PLAIN: {"optimizer": sgd, "constrained": False},
    "SGD, tangent gradient": {"optimizer": sgd, "tangent_gradient": True},
    "Stiefel(Adam)": {"optimizer": functools.partial(stiefel, inner="Adam", rate=1e-3)},
    "Stiefel(Muon)": {"optimizer": functools.partial(stiefel, inner="Muon", rate=1e-3)},
    "StiefelMuon, period 1": {"optimizer": functools.partial(stiefel_muon, period=1)},
    "StiefelMuon": {"optimizer": stiefel_muon},
}
BACKENDS = {"TensorFlow XLA": True, "TensorFlow": False, "JAX": True}
CONTENDERS = {
    f"{name}, {backend}": Contender(
        backend.split()[0].lower(), functools.partial(build, jit=jit, **settings)
    )
    for backend, jit in BACKENDS.items()
    for name, settings in OPTIMIZERS.items()
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
