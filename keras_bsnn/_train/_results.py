"""What the command makes of trained networks: numbers, files, a figure, a table."""

import shutil
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bsnn import diagnostics, export, manifolds, plots
from keras_bsnn._train._networks import MODELS
from keras_bsnn._types import Array


def measured(
    networks: dict[str, keras.Model], data: dict[str, Any], splits: Iterable[str]
) -> dict[str, Any]:
    """The accuracies, the signals and the orthogonality error of networks by name."""
    x, y = next(iter(data["fit"]))
    return {
        "accuracy": {
            label: {name: _accuracy(network, data[name]) for name in splits}
            for label, network in networks.items()
        },
        "norms": {
            label: diagnostics.signal_report(network, x, y, training=False).trained()
            for label, network in networks.items()
        },
        "orthogonality_error": _orthogonality_error(networks["ours"]),
    }


def _accuracy(model: keras.Model, data: Any) -> float:
    return model.evaluate(data, verbose=0, return_dict=True)["accuracy"]


def _orthogonality_error(model: keras.Model) -> float | None:
    """Of the constrained kernels; `None` if there are none."""
    kernels = manifolds.constrained(model.trainable_variables)
    errors = (manifold.error(kernel) for kernel, manifold in kernels)
    arrays = map(keras.ops.convert_to_numpy, errors)
    return max((float(array.max()) for array in arrays), default=None)


def saved(model: keras.Model, test_data: Any, out: Path) -> dict[str, float]:
    """Saves the model, and how far predictions of the files are from those in memory.

    Why there is no SavedModel, as without TensorFlow or on PyTorch, is said.
    """
    # What is there already is of this very run, before it was interrupted.
    (out / "model.keras").unlink(missing_ok=True)
    model.save(out / "model.keras")
    images = np.resize(next(iter(test_data))[0], (1000, *model.input_shape[1:]))
    reloaded = keras.models.load_model(out / "model.keras")
    expected = model.predict(images, batch_size=1000, verbose=0)
    found = reloaded.predict(images, batch_size=1000, verbose=0)
    differences = {"model.keras": _difference(found, expected)}
    try:
        return differences | _served(model, images, expected, out / "saved_model")
    except (ModuleNotFoundError, ValueError) as error:  # of the export
        print(f"No SavedModel was written: {error}")
        return differences


def _served(
    model: keras.Model, images: Array, expected: Array, path: Path
) -> dict[str, float]:
    """The differences of a SavedModel, which TensorFlow serves."""
    shutil.rmtree(path, ignore_errors=True)
    export.saved_model(model, path)
    import tensorflow as tf  # which has written it

    served = tf.saved_model.load(path)
    # A batch of 1 has its own reference: its sums are rounded in another order.
    one = model.predict(images[:1], verbose=0)
    return {
        "saved_model, batch of 1,000": _difference(served.serve(images), expected),
        "saved_model, batch of 1": _difference(served.serve(images[:1]), one),
    }


def _difference(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max())


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The result as it goes into a file: norms by their spread."""
    norms = {
        label: {"forward": _spread(n.root_mean_square), "gradient": _spread(n.gradient)}
        for label, n in result["norms"].items()
    }
    return {**result, "norms": norms}


def _spread(values: Array) -> dict[str, float]:
    return {"min": values.min(), "median": np.median(values), "max": values.max()}


def draw(result: dict[str, Any], path: Path) -> None:
    """The figure of signals and gradients."""
    names = {"ours": "ours", "plain": "plain, Glorot"}
    curves = {
        f"{names[label]}: {result['accuracy'][label]['test']:.1%} on test data": norms
        for label, norms in result["norms"].items()
    }
    plots.signals(curves, path)


def show(result: dict[str, Any], args: Namespace) -> None:
    """Prints the table of the result, and where its files are."""
    from rich.console import Console  # which Keras brings
    from rich.table import Table

    widths = f"{args.units} {'filters' if MODELS[args.model].is_cnn else 'units'}"
    table = Table(title=f"{args.dataset}, {args.depth} layers of {widths}")
    table.add_column("")
    for label in result["accuracy"]:
        table.add_column(label, justify="right")
    for row in _rows(result):
        table.add_row(*row)
    Console().print(table)
    print(f"Results: {args.out}")


def _rows(result: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    accuracies = result["accuracy"].values()
    for split in next(iter(accuracies)):
        yield f"{split} accuracy", *(f"{a[split]:.4f}" for a in accuracies)
    norms = summary(result)["norms"].values()
    for kind in ("forward", "gradient"):
        for which in ("min", "median", "max"):
            yield f"{kind} norm, {which}", *(f"{n[kind][which]:.3g}" for n in norms)
    if result["orthogonality_error"] is not None:
        yield "largest orthogonality error", f"{result['orthogonality_error']:.1e}"
    for name, difference in result["largest_difference"].items():
        yield f"{name}: largest difference", f"{difference:.1e}"
