"""What a model consists of."""

from collections.abc import Iterable, Iterator

import keras
import numpy as np


def leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model and of the models in it; another layer as it is."""
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from leaves(inner)
    elif not isinstance(layer, keras.layers.InputLayer):
        yield layer


def check_finite(variables: Iterable[keras.Variable]) -> None:
    """Raises `ValueError` for the first weight that is not finite."""
    for variable in variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise ValueError(
                f"`model` must have finite weights: {variable.path!r} has others."
            )
