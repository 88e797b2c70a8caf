"""From images to the coarse grid on which a network is deep."""

from collections.abc import Sequence

import keras

from keras_bsnn._types import Shape
from keras_bsnn.models import _parts
from keras_bsnn.ops import _check

FIRST_FILTERS = 16
COARSEST = 4  # pixels, the least height and width that a stem makes by default


def layers(
    filters: Sequence[int] | None, input_shape: Shape | None, seed: int | None
) -> list:
    """Convolutions of 3 x 3 with a ReLU, each of which halves the height and width.

    Args:
        filters: Sequence of positive integers, the filters of each, or `None`: 16, 32,
            64, and so on, as many as leave `COARSEST` pixels.
        input_shape: The shape of one image, or `None` if it is not known.
        seed: Integer or `None`.

    Raises:
        ValueError: If an argument is not as described, or `filters` is `None` for
            images of unknown size.
    """
    space = _space(input_shape)
    if filters is None:
        filters = _default(space, input_shape)
    kind = "a sequence of positive integers, or None"
    filters = _check.interpreted("stem", kind, _integers, filters)
    return [
        keras.layers.Conv2D(
            count,
            3,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed),
        )
        for count, seed in zip(filters, _parts.seeds(seed, len(filters)), strict=True)
    ]


def _space(input_shape):
    """Height and width, or `None` where the shape is."""
    if input_shape is None:
        return None
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        kind = "the shape of an image, a tuple of three integers"
        raise _check.refusal("input_shape", kind, input_shape)
    is_first = keras.config.image_data_format() == "channels_first"
    return input_shape[1:] if is_first else input_shape[:2]


def _default(space, input_shape):
    if space is None or None in space:
        kind = "of known height and width where stem=None"
        raise _check.refusal("input_shape", kind, input_shape)
    size, count = min(space), 0
    while (halved := -(-size // 2)) >= COARSEST:
        size, count = halved, count + 1
    return [FIRST_FILTERS * 2**i for i in range(count)]


def _integers(values):
    return tuple(_check.integer("stem", value) for value in values)
