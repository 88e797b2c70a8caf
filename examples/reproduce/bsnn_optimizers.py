"""What does an optimizer on the tangent space change? One epoch with each.

    python examples/reproduce/bsnn_optimizers.py --dataset mnist

SGD and Adam with the constraint alone and within `Stiefel`, and `StiefelMuon` with 3, 4
and 5 Newton-Schulz steps, each at several learning rates; those of one seed start from
the same weights and see the same batches. The gradient of the layers is the Euclidean
one. It leaves a JSON, which a second call completes.
"""

import itertools
import json
from pathlib import Path

import _script
import _training
import keras
import numpy as np

from keras_bsnn import datasets, models
from keras_bsnn.optimizers import Stiefel, StiefelMuon

SGD_RATES, ADAM_RATES = (1e-3, 3e-3, 1e-2, 3e-2), (1e-4, 3e-4, 1e-3, 3e-3)
MUON_RATES = (0.05, 0.1, 0.2)


def sgd(rate):
    return keras.optimizers.SGD(rate, momentum=0.9)


OPTIMIZERS = {
    "SGD": (sgd, SGD_RATES),
    "Stiefel(SGD)": (lambda rate: Stiefel(sgd(rate)), SGD_RATES),
    "Adam": (keras.optimizers.Adam, ADAM_RATES),
    "Stiefel(Adam)": (lambda rate: Stiefel(keras.optimizers.Adam(rate)), ADAM_RATES),
    "StiefelMuon, 3 steps": (lambda rate: StiefelMuon(rate, ns_steps=3), MUON_RATES),
    "StiefelMuon, 4 steps": (lambda rate: StiefelMuon(rate, ns_steps=4), MUON_RATES),
    "StiefelMuon, 5 steps": (lambda rate: StiefelMuon(rate, ns_steps=5), MUON_RATES),
}
HEADS = ("", "best learning rate", "accuracy in %", "range over the seeds")


def main():
    args = arguments()
    _script.use_threads(args.threads)
    found = json.loads(args.out.read_text())["result"] if args.out.exists() else []
    runs = [] if args.show else itertools.product(args.optimizers, args.seeds)
    for name, seed in runs:
        make, rates = OPTIMIZERS[name]
        for rate in rates:
            key = {"optimizer": name, "learning_rate": rate, "seed": seed}
            if not any(key.items() <= point.items() for point in found):
                found.append({**key, **train(make, rate, seed, args)})
                print(found[-1], flush=True)
                _script.write(args.out, settings=_script.settings(args), result=found)
    title = f"{args.dataset}, {args.depth} x {args.width}, validation, one epoch"
    _script.publish(args, "reproduce/bsnn_optimizers.py", title, HEADS, contents(found))


def arguments():
    parser = _script.parser(__doc__)
    parser.set_defaults(depth=100, width=64)
    add = parser.add_argument
    add("--activation", default="relu")
    add("--batch-size", type=int, default=256)
    add("--optimizers", nargs="+", choices=OPTIMIZERS, default=[*OPTIMIZERS])
    add("--seeds", nargs="+", type=int, default=[0, 1])
    add("--out", type=Path, default=_script.RESULTS / "bsnn_optimizers.json")
    return parser.parse_args()


def train(make, rate, seed, args):
    keras.utils.set_random_seed(seed)
    data = _training.load(args.dataset, args.batch_size, True, seed)
    model = models.bsnn_mlp(
        args.depth,
        args.width,
        args.activation,
        datasets.IMAGE_SETS[args.dataset].classes,
        input_shape=datasets.IMAGE_SETS[args.dataset].shape,
        seed=seed,
        tangent_gradient=False,
    )
    _training.compile_model(
        model, make(_training.warm_up_and_decay(rate, len(data["fit"])))
    )
    clock = _training.Clock(data["held_out"], every=len(data["fit"]))
    model.fit(data["fit"], shuffle=False, verbose=0, callbacks=[clock])
    return clock.curve[-1]


def contents(found):
    for name in OPTIMIZERS:
        rates, means, ranges = summary(found, name)
        if rates:
            best = np.argmax(means)
            accuracy = f"{100 * means[best]:.2f}"
            yield name, f"{rates[best]:g}", accuracy, f"{100 * ranges[best]:.2f}"


def summary(found, name):
    """Mean and range of the accuracy over the seeds, at each learning rate."""
    rates = sorted({p["learning_rate"] for p in found if p["optimizer"] == name})
    accuracies = [
        [
            p["accuracy"]
            for p in found
            if (p["optimizer"], p["learning_rate"]) == (name, rate)
        ]
        for rate in rates
    ]
    return rates, [*map(np.mean, accuracies)], [*map(np.ptp, accuracies)]


if __name__ == "__main__":
    main()
