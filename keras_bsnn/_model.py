"""What a model consists of."""

import keras
import numpy as np


def leaves(model):
    """The layers of a model, and of the models among them."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def check_finite(variables):
    """Raises `ValueError` for weights that are not finite."""
    for variable in variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise ValueError(
                f"`model` must have finite weights: {variable.path!r} has others."
            )
