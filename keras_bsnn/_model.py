"""What a model consists of."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np


def leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model and of the models in it; another layer as it is."""
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from leaves(inner)
    elif not isinstance(layer, keras.layers.InputLayer):
        yield layer


def graph(model: keras.Model) -> keras.Model:
    """The functional model that a Sequential is, once it is built; else the model."""
    is_sequential = isinstance(model, keras.Sequential)
    return model._functional if is_sequential else model


def is_functional(layer: Any) -> bool:
    """Whether a layer is a model that is made of calls of layers."""
    return isinstance(layer, keras.Model) and hasattr(graph(layer), "_nodes_by_depth")


def nodes(model: keras.Model) -> list:
    """The calls of a functional model, and its inputs, in an order that can be run."""
    levels = sorted(graph(model)._nodes_by_depth.items(), reverse=True)
    return [node for _, level in levels for node in level]


def check_finite(variables: Iterable[keras.Variable]) -> None:
    """Raises `ValueError` for the first weight that is not finite."""
    for variable in variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise ValueError(
                f"`model` must have finite weights: {variable.path!r} has others."
            )
