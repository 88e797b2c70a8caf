"""Does the signal get through? Nine networks of 200 layers, before training.

    python examples/reproduce/side_by_side.py --dataset digits

For each the verdict of `keras_bsnn.diagnostics.signal_report` on a batch of training
data, and a figure of all layers with weights.
"""

import functools
import types

import _training
import keras
import numpy as np
from _runner import Choice, Experiment, columns, significant

from keras_bsnn import datasets, diagnostics, models, plots

BATCH = 128
POINTS = 100  # of a curve
FIELDS = ("gradient", "cosine_similarity", "isometry_gap")


def of_dense(activation, initializer):
    """A function of the depth and the width that makes the hidden layers."""

    def layers(depth, width):
        for _ in range(depth):
            yield keras.layers.Dense(width, activation, kernel_initializer=initializer)

    return layers


def normalized(depth, width):
    for _ in range(depth):
        yield keras.layers.Dense(width, kernel_initializer="random_normal")
        yield keras.layers.BatchNormalization(center=False, scale=False)
        yield keras.layers.ReLU()


def plain(layers, depth, width, classes, input_shape):
    """Layers one after the other, between flattened inputs and logits."""
    inputs = [keras.Input(input_shape), keras.layers.Flatten()]
    outputs = keras.layers.Dense(classes)
    return keras.Sequential([*inputs, *layers(depth, width), outputs])


def residual(layers, depth, width, classes, input_shape):
    inputs = keras.Input(input_shape)
    x = keras.layers.Dense(width)(keras.layers.Flatten()(inputs))
    for layer in layers(depth, width):
        x = keras.layers.add([x, layer(x)])
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


NETWORKS = {
    "ours: bsnn_mlp": functools.partial(models.bsnn_mlp, seed=0),
    "ours: batchnorm_mlp": functools.partial(models.batchnorm_mlp, seed=0),
    "ours: roaf_mlp": functools.partial(models.roaf_mlp, seed=0),
    "tanh, Glorot": functools.partial(plain, of_dense("tanh", "glorot_uniform")),
    "ReLU, Glorot": functools.partial(plain, of_dense("relu", "glorot_uniform")),
    "ReLU, He": functools.partial(plain, of_dense("relu", "he_normal")),
    "SELU, LeCun": functools.partial(plain, of_dense("selu", "lecun_normal")),
    "batch norm, Gaussian": functools.partial(plain, normalized),
    "residual, He": functools.partial(residual, of_dense("relu", "he_normal")),
}


@functools.cache  # its order depends on what was drawn before
def batch_of(dataset, seed):
    return next(iter(datasets.load(dataset, "train", BATCH, seed=seed)))


def run(args, row):
    batch = batch_of(args.dataset, args.seed)
    image_set = datasets.IMAGE_SETS[args.dataset]
    size = (args.depth, args.width, image_set.shape, image_set.classes)
    report = report_of(row, size, *batch, seed=args.seed)
    curves = report.trained()
    # Of layers at even distances, as many as there are points in the figure.
    layers = np.linspace(0, len(curves.gradient) - 1, POINTS).round().astype(int)
    return {
        "ratio": significant(report.gradient[0] / report.gradient[-1]),
        "verdict": report.verdict,
        **{f: [*map(significant, getattr(curves, f)[layers])] for f in FIELDS},
    }


def report_of(name, size, x, y, seed=0):
    """Of the network of a name, as it is before training."""
    keras.utils.clear_session()  # numbers in the names of layers start anew
    keras.utils.set_random_seed(seed)
    depth, width, shape, classes = size
    model = NETWORKS[name](depth, width, classes=classes, input_shape=shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return diagnostics.signal_report(model, x, y, loss=loss)


def ratio(row):
    ratio = float(row["ratio"])
    return f"{ratio:.2g}" if np.isfinite(ratio) else "not finite"


TABLE = {
    "": "{row}",
    "verdict": lambda row: row["verdict"].split(" Try ")[0],
    "gradient, first / last": ratio,
}


def draw(records, path):
    reports = {}
    for row in records:
        arrays = {field: np.array(row[field], "float64") for field in FIELDS}
        reports[row["row"]] = types.SimpleNamespace(**arrays)
    plots.signals(reports, path, "% of the depth", FIELDS)


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE, left=2),
        rows={"row": "rows"},
        figure=draw,
        options={
            **_training.images("digits", width=64),
            **{"rows": Choice(NETWORKS), "seed": 0},
        },
    ).main()
