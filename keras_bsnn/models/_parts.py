"""Parts that the networks share."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_bsnn import activations
from keras_bsnn._types import Activation, Pointwise, Shape
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.ops import _check, gaussian

TOLERANCE = 5e-5  # as estimated; errors stay below 1e-4

# Norm of the first kernel's columns. The outputs are normalized afterwards, so that any
# norm would do; the columns grow to about three times this size as the kernel finds
# where the data vary.
FIRST_NORM = 0.5


def classifier(
    layers: Iterable[keras.layers.Layer],
    classes: int,
    input_shape: Shape | None,
    seed: int | None,
) -> keras.Sequential:
    """The layers, and a `Dense` to float32 logits with orthogonal columns.

    Args:
        layers: The layers before, of which the last or an earlier one is `Flatten`.
        classes: The number of logits.
        input_shape: The shape of one input, or `None` if it is not known yet.
        seed: The seed of the last kernel, an integer or `None`.
    """
    logits = keras.layers.Dense(
        classes, dtype="float32", kernel_initializer=HaarOrthogonal(seed=seed)
    )
    start = [] if input_shape is None else [keras.Input(input_shape)]
    return keras.Sequential([*start, *layers, logits])


def seeds(seed: int | None, count: int) -> list[int | None]:
    """A seed for each layer, as numbers: they also differ in a clone of the model."""
    seed = _check.seed("seed", seed)
    if seed is None:
        return [None] * count
    return np.random.SeedSequence(seed).generate_state(count).tolist()


def normalized(activation: Activation, depth: int, eta: float) -> Pointwise:
    """The activation shaped for a depth, unless it is an object of ours already."""
    function = activations.get(activation)
    if isinstance(function, keras.layers.Layer):
        return function
    if gaussian.shaping_epsilon(function, depth, eta) == float("inf"):
        return activations.GaussianPoincare(function)
    return activations.DepthShaped(function, depth, eta)
