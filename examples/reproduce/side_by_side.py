"""Does the signal get through? Nine networks of 200 layers, before training.

    python examples/reproduce/side_by_side.py --dataset digits

For each the verdict of `keras_bsnn.diagnostics.signal_report` on a batch of training
data, and a figure of all layers with weights.
"""

import functools
import json
import types
from pathlib import Path

import _script
import keras
import numpy as np

from keras_bsnn import datasets, diagnostics, models, plots

BATCH = 128
POINTS = 100  # of a curve
FIELDS = ("gradient", "cosine_similarity", "isometry_gap")


def dense(activation, initializer, depth, width):
    for _ in range(depth):
        yield keras.layers.Dense(width, activation, kernel_initializer=initializer)


def normalized(depth, width):
    for _ in range(depth):
        yield keras.layers.Dense(width, kernel_initializer="random_normal")
        yield keras.layers.BatchNormalization(center=False, scale=False)
        yield keras.layers.ReLU()


def plain(layers, depth, width, shape, classes):
    """Layers one after the other, between flattened inputs and logits."""
    inputs = [keras.Input(shape), keras.layers.Flatten()]
    outputs = keras.layers.Dense(classes)
    return keras.Sequential([*inputs, *layers(depth, width), outputs])


def residual(depth, width, shape, classes):
    inputs = keras.Input(shape)
    x = keras.layers.Dense(width)(keras.layers.Flatten()(inputs))
    for layer in dense("relu", "he_normal", depth, width):
        x = keras.layers.add([x, layer(x)])
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


def ours(make, depth, width, shape, classes):
    return make(depth, width, classes=classes, input_shape=shape, seed=0)


def of_dense(activation, initializer):
    layers = functools.partial(dense, activation, initializer)
    return functools.partial(plain, layers)


# Each a function of the depth, the width, the shape of the inputs, and the classes.
NETWORKS = {
    "ours: bsnn_mlp": functools.partial(ours, models.bsnn_mlp),
    "ours: batchnorm_mlp": functools.partial(ours, models.batchnorm_mlp),
    "ours: roaf_mlp": functools.partial(ours, models.roaf_mlp),
    "tanh, Glorot": of_dense("tanh", "glorot_uniform"),
    "ReLU, Glorot": of_dense("relu", "glorot_uniform"),
    "ReLU, He": of_dense("relu", "he_normal"),
    "SELU, LeCun": of_dense("selu", "lecun_normal"),
    "batch norm, Gaussian": functools.partial(plain, normalized),
    "residual, He": residual,
}


def main():
    args = arguments()
    if not args.show:
        _script.write(args.out, settings=_script.settings(args), result=measured(args))
    found = json.loads(args.out.read_text())["result"]
    title = f"{args.dataset}, {args.depth} x {args.width}"
    heads = ("", "gradient, first / last", "verdict")
    _script.publish(args, "reproduce/side_by_side.py", title, heads, contents(found))
    reports = {name: curves(row) for name, row in found.items()}
    plots.signals(reports, args.figure, "% of the depth", FIELDS)


def arguments():
    parser = _script.parser(__doc__)
    parser.set_defaults(dataset="digits", width=64)
    add = parser.add_argument
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=_script.RESULTS / "side_by_side.json")
    add("--figure", type=Path, default=Path("docs/side_by_side.png"))
    return parser.parse_args()


def measured(args):
    batch = next(iter(datasets.load(args.dataset, "train", BATCH, seed=args.seed)))
    image_set = datasets.IMAGE_SETS[args.dataset]
    size = (args.depth, args.width, image_set.shape, image_set.classes)
    found = {}
    for name in NETWORKS:
        report = report_of(name, size, *batch, seed=args.seed)
        found[name] = {
            "ratio": _script.significant(report.gradient[0] / report.gradient[-1]),
            "verdict": report.verdict,
            **{field: evenly(getattr(report.trained(), field)) for field in FIELDS},
        }
    return found


def evenly(values):
    """As many as there are points in the figure, of layers at even distances."""
    layers = np.linspace(0, len(values) - 1, POINTS).round().astype(int)
    return [_script.significant(value) for value in values[layers]]


def contents(found):
    for name, row in found.items():
        ratio = float(row["ratio"])
        cell = f"{ratio:.2g}" if np.isfinite(ratio) else "not finite"
        yield name, cell, row["verdict"].split(" Try ")[0]


def curves(row):
    """As `plots.signals` takes them."""
    arrays = {field: np.array(row[field], "float64") for field in FIELDS}
    return types.SimpleNamespace(**arrays)


def report_of(name, size, x, y, seed=0):
    """Of the network of a name, as it is before training."""
    keras.utils.clear_session()  # numbers in the names of layers start anew
    keras.utils.set_random_seed(seed)
    model = NETWORKS[name](*size)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss)
    return diagnostics.signal_report(model, x, y)


if __name__ == "__main__":
    main()
