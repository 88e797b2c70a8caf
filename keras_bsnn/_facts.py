"""What is affine, pointwise or normalizing: Keras' own layers and functions in tables.

A layer or a function of this package, or of anyone else, says it of itself, by the
attributes `is_affine`, `is_pointwise` and `is_normalizing`.
"""

from typing import Any

import keras

from keras_bsnn._types import Activation

IDENTITIES = (  # in evaluation
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
)
AFFINE = (
    *IDENTITIES,
    keras.layers.Activation,  # where it is linear
    keras.layers.BatchNormalization,
    keras.layers.Dense,
    keras.layers.Rescaling,
)
NORMALIZING = (keras.layers.BatchNormalization,)
POINTWISE_LAYERS = (keras.layers.ELU, keras.layers.LeakyReLU, keras.layers.ReLU)
POINTWISE = tuple(
    getattr(keras.activations, name)
    for name in (
        *("elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh"),
        *("leaky_relu", "linear", "mish", "relu", "relu6", "selu", "sigmoid", "silu"),
        *("soft_shrink", "softplus", "softsign", "tanh", "tanh_shrink"),
    )
)


def said_by(layer, name):
    """An attribute that the very class of a layer defines; `None` for other layers.

    A class that is derived from it may compute anything, so it must say it again.
    """
    return getattr(layer, name) if name in vars(type(layer)) else None


def is_affine(layer: keras.layers.Layer) -> bool:
    """Whether a layer or a model is `x @ kernel + bias` of the last axis in evaluation.

    `False` where that is not known.
    """
    if isinstance(layer, keras.Sequential):
        return all(map(is_affine, layer.layers))
    return bool(said_by(layer, "is_affine")) or _is_affine_in_keras(layer)


def _is_affine_in_keras(layer):
    return (
        type(layer) in AFFINE
        and getattr(layer, "quantization_mode", None) is None
        and is_linear(getattr(layer, "activation", None))
        and getattr(layer, "axis", -1) == -1
    )


def is_linear(activation: Activation) -> bool:
    """Whether an activation is the identity."""
    return activation is None or activation is keras.activations.linear


def is_pointwise(function: Any) -> bool:
    """Whether a function or a layer is known to act on each entry alone.

    A softmax does not.
    """
    return (
        bool(getattr(function, "is_pointwise", False))
        or isinstance(function, POINTWISE_LAYERS)
        or function in POINTWISE
    )


def is_normalizing(layer: keras.layers.Layer) -> bool:
    """Whether a layer normalizes by statistics of the batch, of which it has averages.

    In evaluation the averages take their place.
    """
    return isinstance(layer, NORMALIZING) or getattr(layer, "is_normalizing", False)
