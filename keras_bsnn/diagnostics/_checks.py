"""Checks of the arguments of a meter."""

import keras
import numpy as np

from keras_bsnn._types import Tensor


def check_model(model: keras.Model) -> None:
    """Raises `ValueError` for a model that cannot be measured."""
    if not isinstance(model, keras.Model) or not model.built or not model.compiled:
        raise ValueError(
            "`model` must be a built keras.Model, compiled with a loss. "
            f"Received: {model!r}"
        )
    if not model.trainable_variables:
        raise ValueError(
            f"`model` must have weights to train: {model.name!r} has none."
        )


def check_batch(model: keras.Model, x: Tensor, y: Tensor) -> None:
    """Raises `ValueError` for inputs and targets that do not fit the model."""
    sizes = {len(z) for z in keras.tree.flatten((x, y))}
    if len(sizes) != 1:
        raise ValueError(
            "`x` and `y` must have the same number of samples. "
            f"Received: {sorted(sizes)}"
        )
    _check_inputs(model, x)


def _check_inputs(model, x):
    """Raises `ValueError` if the shapes of the inputs of the model are other ones."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return
    expected = [tuple(z.shape[1:]) for z in inputs]
    found = [tuple(np.shape(z)[1:]) for z in keras.tree.flatten(x)]
    fits = len(expected) == len(found) and all(
        len(a) == len(b) and all(n in (None, m) for n, m in zip(a, b, strict=True))
        for a, b in zip(expected, found, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`x` must fit the inputs of the model, of shapes {expected} for a sample. "
            f"Received: {found}"
        )
