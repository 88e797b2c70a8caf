"""Plain convolutional networks of 10 to 10,000 layers: ours, and the published ones.

    python examples/reproduce/deep_cnn.py --dataset mnist

Rows: `bsnn_cnn` with `StiefelMuon`; and what Xiao et al. (arXiv 1806.05393) made for
such depths: free kernels of 3 x 3 that start delta-orthogonal, tanh, weights and biases
of critical variance, SGD with momentum 0.95. Stem, width, readout, batches, epochs and
schedule are the same, and each has the best learning rate of a grid on held-out images
(`--validate`). After each epoch a model is in `--checkpoints`, from which a second call
goes on. The figure shows the norms of every layer after training.
"""

from pathlib import Path

import _training
import keras
import numpy as np
from _runner import Choice, Experiment, columns, significant
from keras import ops

from keras_bsnn import datasets, models
from keras_bsnn.initializers import DeltaOrthogonal
from keras_bsnn.layers import DepthStack
from keras_bsnn.optimizers import StiefelMuon
from keras_bsnn.plots import figure, legend_on_top

POINTS = 100  # of a curve of norms, and the number of layers whose kernel is looked at
OURS, PUBLISHED = "orthogonal", "delta-orthogonal start"


def run(args, construction, dataset, depth, learning_rate, seed, curve=(), **_):
    """Goes on from where it was left, and yields after each epoch."""
    data = _training.load(
        dataset, args.batch_size, args.validate, seed, augment=args.augment
    )
    sizes = f"{depth}_{args.filters}_{args.epochs}_{args.augment}_{args.validate}"
    name = f"{construction[:5]}_{dataset}_{sizes}_{learning_rate}_{seed}.keras"

    def start():
        keras.utils.set_random_seed(seed)
        steps = args.epochs * len(data["fit"])
        rate = _training.warm_up_and_decay(learning_rate, steps)
        sizes = {"filters": args.filters, "stem": args.stem}
        model = network(construction, dataset, depth, seed=seed, **sizes)
        _training.compile_model(model, optimizer(construction, rate))
        return model

    limits = (args.epochs, 60 * args.minutes)
    checkpoint = Path(args.checkpoints) / name
    for model, now in _training.by_epochs(start, data, checkpoint, curve, *limits):
        row = {"curve": now}
        if _training.has_all_epochs(args, row):
            row |= described(model, dataset, seed)
        yield row


def network(construction, dataset, depth, filters, stem, seed):
    shape = _training.shape_of(dataset)
    model = models.bsnn_cnn(depth, filters, stem=stem, seed=seed, **shape)
    if construction == OURS:
        return model
    layers = [keras.Input(shape["input_shape"])]
    for layer in model.layers:
        if isinstance(layer, DepthStack):
            layer = DepthStack(free_block(depth, filters, seed), depth)
        if not isinstance(layer, keras.layers.Activation):
            layers.append(layer)
    return keras.Sequential(layers)


def optimizer(construction, rate):
    if construction == OURS:
        return StiefelMuon(rate)
    return keras.optimizers.SGD(rate, momentum=0.95)


def free_block(depth, filters, seed):
    kernel, bias = critical_variances(1 / depth)
    return CircularConv2D(
        filters,
        3,
        padding="same",
        activation="tanh",
        kernel_initializer=DeltaOrthogonal(kernel**0.5, seed),
        bias_initializer=keras.initializers.RandomNormal(stddev=bias**0.5, seed=seed),
    )


def critical_variances(q):
    """Of weights and biases, so that tanh keeps the mean square `q` and its slope 1."""
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    squashed = np.tanh(q**0.5 * z)
    kernel = 1 / (weights @ (1 - squashed**2) ** 2)
    return kernel, max(0.0, q - kernel * (weights @ squashed**2))


@keras.saving.register_keras_serializable("deep_cnn")
class CircularConv2D(keras.layers.Conv2D):
    """With circular padding, by shifts and one product: XLA is slow otherwise."""

    def call(self, inputs):
        reach = range(self.kernel_size[0] // 2, -(self.kernel_size[0] // 2) - 1, -1)
        shifted = [ops.roll(inputs, (i, j), (1, 2)) for i in reach for j in reach]
        kernel = ops.reshape(self.kernel, (-1, self.filters))
        x = ops.matmul(ops.concatenate(shifted, axis=-1), kernel)
        return self.activation(x + self.bias)


def described(model, dataset, seed):
    """Norms over the depth, and singular values of the layers, after training."""
    norms = _training.signal_norms(model, dataset, seed)
    stack = _training.stack_of(model)
    before = model.layers[: model.layers.index(stack)]
    first = sum(bool(layer.weights) for layer in before)
    kept = slice(first, first + stack.depth)
    forward, layers = _training.thinned(norms.root_mean_square[kept], POINTS)
    gradient, _ = _training.thinned(norms.gradient[kept], POINTS)
    values = singular_values(stack)
    return {
        "norms": {"layer": layers, "forward": forward, "gradient": gradient},
        "singular_values": [significant(values.min()), significant(values.max())],
        "rms_log": significant(
            np.sqrt(np.mean(np.log(np.maximum(values, 1e-30)) ** 2))
        ),
    }


def singular_values(stack):
    """Of some layers as maps of images, which are those of each frequency."""
    chosen = np.unique(np.linspace(0, stack.depth - 1, POINTS).round().astype(int))
    layers = [stack.layer_at(int(i)) for i in chosen]
    kernels = [
        layer.kernel if isinstance(layer, CircularConv2D) else layer.explicit_kernel()
        for layer in layers
    ]
    space = stack.output.shape[1:3]
    spectra = [spectrum(ops.convert_to_numpy(kernel), space) for kernel in kernels]
    return np.linalg.svd(spectra, compute_uv=False)


def spectrum(kernel, space):
    """A matrix over the channels for each frequency of images on a torus."""
    taps = np.zeros((*space, *kernel.shape[2:]))
    for (i, j), _ in np.ndenumerate(kernel[..., 0, 0]):
        taps[(i - 1) % space[0], (j - 1) % space[1]] += kernel[i, j]
    return np.fft.fft2(taps, axes=(0, 1))


def by_depth(records):
    keys = ("dataset", "augment", "depth", "learning_rate", "seed")

    def key(row):
        return row["construction"] != OURS, *(row[k] for k in keys)

    return sorted((row for row in records if "norms" in row), key=key)


TABLE = {
    "": "{construction}",
    "images": "{dataset}",
    "layers": "{depth:,}",
    "filters": "{filters}",
    "learning rate": "{learning_rate:g}",
    "seed": "{seed}",
    "epochs": lambda row: f"{len(row['curve'])}{', shifted' * row['augment']}",
    "minutes": _training.minutes,
    "accuracy in %": lambda row: f"{100 * row['curve'][-1]['accuracy']:.2f}",
    "singular values": lambda row: " to ".join(
        f"{float(v):.4g}" for v in row["singular_values"]
    ),
    "gradient norms, max/min": lambda row: _ratio(row["norms"]["gradient"]),
}


def _ratio(values):
    values = np.array(values, "float64")
    return f"{values.max() / values.min():.3g}"


def draw(records, path):
    """The norms after training, of one seed, where images were not shifted."""
    seed = min(row["seed"] for row in records)
    drawn = [r for r in records if r["seed"] == seed and not r["augment"]]
    names = {"forward": "root mean square", "gradient": "gradient"}
    with figure(path, rows=2, size=(7, 8)) as panels:
        for panel, (key, title) in zip(panels, names.items(), strict=True):
            for row in drawn:
                layers = np.array(row["norms"]["layer"])
                values = np.array(row["norms"][key], "float64")
                style = "-" if row["construction"] == OURS else "--"
                label = "{construction}, {dataset}, {depth:,}".format(**row)
                share = 100 * layers / max(1, layers[-1])
                panel.plot(share, values, style, label=label)
            panel.set(yscale="log", ylabel=title)
        legend_on_top(panels[0], ncols=2, fontsize=8)
        panels[-1].set_xlabel("% of the depth")


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        rows={
            "construction": "constructions",
            "dataset": "dataset",
            "depth": "depths",
            "learning_rate": "rates",
            "seed": "seeds",
            **{name: name for name in ("filters", "epochs", "augment")},
        },
        arrange=by_depth,
        figure=draw,
        options={
            "constructions": Choice((OURS, PUBLISHED), [OURS]),
            "dataset": Choice(datasets.IMAGE_SETS, "mnist"),
            **{"depths": [10, 100, 1000, 10_000], "rates": [0.05], "seeds": [0]},
            **{"filters": 8, "stem": [16, 32, 64], "batch_size": 128},
            **{"epochs": 3, "minutes": 60.0},
            **{"augment": False, "validate": False, "checkpoints": "runs/deep_cnn"},
        },
        record="deep_cnn",
        is_done=_training.has_all_epochs,
    ).main()
