"""Parts that the networks share."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_bsnn import activations
from keras_bsnn._types import Activation, Pointwise, Shape
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.ops import _check, gaussian

TOLERANCE = 5e-5  # as estimated; errors stay below 1e-4


def classifier(
    layers: Iterable[keras.layers.Layer],
    classes: int,
    input_shape: Shape | None,
    seed: int | None,
) -> keras.Sequential:
    """`Flatten`, the layers, and a `Dense` to float32 logits with orthogonal columns.

    Args:
        layers: The layers in between.
        classes: The number of logits.
        input_shape: The shape of one input, or `None` if it is not known yet.
        seed: The seed of the last kernel, an integer or `None`.
    """
    layers = [keras.layers.Flatten(), *layers, _logits(classes, seed)]
    start = [] if input_shape is None else [keras.Input(input_shape)]
    return keras.Sequential([*start, *layers])


def image_classifier(
    layers: Iterable[keras.layers.Layer],
    classes: int,
    input_shape: Shape | None,
    patch: int,
    seed: int | None,
) -> keras.Sequential:
    """The layers, `Flatten`, and a `Dense` to float32 logits with orthogonal columns.

    Args:
        layers: The layers, of which the first takes patches.
        classes: The number of logits.
        input_shape: The shape of one image.
        patch: The height and width of a patch, which must divide those of an image.
        seed: The seed of the last kernel, an integer or `None`.
    """
    start = keras.Input(_image_shape(input_shape, patch))
    end = [keras.layers.Flatten(), _logits(classes, seed)]
    return keras.Sequential([start, *layers, *end])


def _image_shape(input_shape, patch):
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
    if len(shape) != 3 or not all(map(_check.is_integer, shape)) or min(shape) < 1:
        kind = "the shape of an image, a tuple of three integers >= 1"
        raise _check.refusal("input_shape", kind, input_shape)
    is_first = keras.config.image_data_format() == "channels_first"
    space = shape[1:] if is_first else shape[:-1]
    if any(size % patch for size in space):
        kind = f"a divisor of the height and width of the images, which are {space}"
        raise _check.refusal("patch", kind, patch)
    return shape


def _logits(classes, seed):
    return keras.layers.Dense(
        classes, dtype="float32", kernel_initializer=HaarOrthogonal(seed=seed)
    )


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
