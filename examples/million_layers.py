"""Trains a network of a million layers by backpropagation, and looks at its gradients.

    python examples/million_layers.py

Random orthogonal additive filters carry signal and gradient: here a cyclic shift, which
needs no memory. In `--out` it leaves `result.json`, written anew every few steps, and
`million_layers.png`: the loss of each step, and the norm of the gradient of each kernel
before and after. With its defaults it takes about 10 GB.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import keras
import numpy as np
from rich.progress import track

from keras_bsnn import _backend, datasets, models
from keras_bsnn._record import environment
from keras_bsnn.layers import DepthStack
from keras_bsnn.plots import figure

POINTS = 1000  # of the curve of gradients that is kept


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    model = network(args)
    data = datasets.load(args.dataset, "train", args.batch_size, seed=args.seed)
    batch = next(iter(data))
    result = {"parameters": model.count_params(), "losses": []}
    result["before"] = measure(model, batch, args)
    train(model, data, result, args)
    result["after"] = measure(model, batch, args)
    write(result, args)
    draw(result, args.out / "million_layers.png")
    for when in ("before", "after"):
        print(when, {k: v for k, v in result[when].items() if k != "gradients"})


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--dataset", default="digits", choices=datasets.IMAGE_SETS)
    add("--depth", type=int, default=1_000_000)
    add("--units", type=int, default=16)
    add("--filter", default="shift", help="as of ROAFDense")
    add("--steps", type=int, default=200)
    add("--batch-size", type=int, default=32)
    add("--learning-rate", type=float, default=3e-3)
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("runs/million_layers"))
    return parser.parse_args()


def network(args):
    image_set = datasets.IMAGE_SETS[args.dataset]
    model = models.roaf_mlp(
        args.depth,
        args.units,
        classes=image_set.classes,
        filter=args.filter,
        shared_filter=True,
        input_shape=image_set.shape,
        seed=args.seed,
    )
    model.compile(
        keras.optimizers.Adam(args.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    return model


def train(model, data, result, args):
    start = time.perf_counter()
    for images, labels in track(data.repeat().take(args.steps), total=args.steps):
        model.reset_metrics()  # else the loss is a mean over all steps
        loss, _ = model.train_on_batch(images.numpy(), labels.numpy())
        result["losses"].append(round(float(loss), 4))
        if len(result["losses"]) % 10 == 0:
            write(result, args)
    result["seconds_per_step"] = (time.perf_counter() - start) / args.steps


def measure(model, batch, args):
    """Accuracy on test data, and the norms of the gradients of the kernels."""
    test = datasets.load(args.dataset, "test", args.batch_size)
    norms = gradient_norms(model, *batch)
    kept = np.unique(np.linspace(0, len(norms) - 1, POINTS).round().astype(int))
    return {
        "test_accuracy": model.evaluate(test, verbose=0, return_dict=True)["accuracy"],
        "gradient_max_over_min": float(norms.max() / norms.min()),
        "gradient_first_over_last": float(norms[0] / norms[-1]),
        "gradients": [float(f"{norm:.3g}") for norm in norms[kept]],
    }


def gradient_norms(model, x, y):
    (stack,) = (layer for layer in model.layers if isinstance(layer, DepthStack))
    kernels = stack.trainable_variables[0]

    @_backend.traced_once
    def norms(values):
        def loss(values):
            with keras.StatelessScope([(kernels, values[0])]):
                return model.compute_loss(y=y, y_pred=model(x, training=True))

        (gradient,) = _backend.gradients(loss, [values])
        return keras.ops.sqrt(keras.ops.sum(keras.ops.square(gradient), axis=(1, 2)))

    return keras.ops.convert_to_numpy(norms(_backend.read(kernels)))


def write(result, args):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    record = {
        **environment(),
        "settings": vars(args),
        "result": {**result, "peak_gigabytes": round(peak, 1)},
    }
    text = json.dumps(record, indent=1, default=str)
    (args.out / "result.json").write_text(text + "\n")


def draw(result, path):
    with figure(path, rows=2) as (above, below):
        above.plot(result["losses"])
        above.set(xlabel="step", ylabel="loss", ylim=(0, None))
        for when in ("before", "after"):
            norms = result[when]["gradients"]
            share = np.linspace(0, 100, len(norms))
            below.plot(share, norms, label=f"{when} training", linewidth=1)
        below.set(
            xlabel="% of the depth", ylabel="gradient of the kernel", yscale="log"
        )
        below.set_ylim(min(norms) / 10, 10 * max(norms))
        below.legend()


if __name__ == "__main__":
    main()
