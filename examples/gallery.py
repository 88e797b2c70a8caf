"""The pictures of this package that explain it, one function call each.

    python examples/gallery.py --out docs

Takes a minute, and no download.
"""

import argparse
from pathlib import Path

import keras
from PIL import Image

from keras_bsnn import callbacks, datasets, layers, models, plots
from keras_bsnn.activations import DepthShaped, GaussianPoincare
from keras_bsnn.ops import isometry

UNITS, SAMPLES = 64, 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    plots.length_map("gelu", args.out / "length_map.png")
    plots.kernel_map(activations(args.depth), args.out / "kernel_map.png", args.depth)
    plots.singular_values(spectra(args.depth), args.out / "singular_values.png")
    reports = training(args.depth, args.epochs)
    plots.heat_map(reports, args.out / "heat_map.png", xlabel="epoch")
    for name in ("length_map", "kernel_map", "singular_values", "heat_map"):
        path = args.out / f"{name}.png"  # 64 colors, for a small file
        Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def activations(depth):
    normalized = {name: GaussianPoincare(name) for name in ("relu", "gelu", "tanh")}
    return {**normalized, "gelu, shaped for the depth": DepthShaped("gelu", depth)}


def spectra(depth):
    """Singular values of Jacobians at random inputs."""
    blocks = {
        "Dense, ReLU, He": keras.layers.Dense(
            UNITS, "relu", kernel_initializer="he_normal"
        ),
        "OrthogonalDense, GELU shaped for the depth": layers.OrthogonalDense(
            UNITS, DepthShaped("gelu", depth, eta=0.15)
        ),
        "ROAFDense, tanh": layers.ROAFDense(UNITS, alpha=1 - 1 / depth),
    }
    x = keras.random.normal((SAMPLES, UNITS))
    return {
        f"{depth} x {name}": isometry.jacobian_singular_values(
            layers.DepthStack(block, depth), x
        )
        for name, block in blocks.items()
    }


def training(depth, epochs):
    """What passes through a network after each epoch on digits."""
    model = models.bsnn_mlp(depth, UNITS, input_shape=(8, 8, 1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=True)
    data = datasets.load("digits", "train", 128, seed=0)
    monitor = callbacks.SignalMonitor(*next(iter(data)))
    # The pipeline shuffles.
    model.fit(data, epochs=epochs, shuffle=False, callbacks=[monitor], verbose=2)
    epochs = range(1, epochs + 1)
    reports = (report.trained() for report in monitor.reports.values())
    return dict(zip(epochs, reports, strict=True))


if __name__ == "__main__":
    main()
