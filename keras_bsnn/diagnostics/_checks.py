"""Checks of the arguments of a meter."""

from collections.abc import Callable

import keras
import numpy as np

from keras_bsnn._types import Loss, Tensor
from keras_bsnn.ops import _check


def check_model(model: keras.Model) -> None:
    """Raises `ValueError` for a model that cannot be measured."""
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"`model` must be a built keras.Model. Received: {model!r}")
    if not model.trainable_variables:
        raise ValueError(
            f"`model` must have weights to train: {model.name!r} has none."
        )


def checked_loss(model: keras.Model, loss: Loss) -> Callable[..., Tensor] | None:
    """The function that an argument stands for; `None` if the model has its own."""
    if loss is not None:
        kind = "a keras.losses.Loss, its name or a function"
        return _check.interpreted("loss", kind, keras.losses.get, loss)
    if not model.compiled:
        raise ValueError(
            "`loss` must be given for a model that is not compiled, as "
            "loss='mse' or loss=keras.losses.SparseCategoricalCrossentropy("
            f"from_logits=True). Received: loss=None, model={model!r}"
        )
    return None


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
