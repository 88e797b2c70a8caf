"""From images to the coarse grid on which a network is deep."""

from collections.abc import Sequence

import keras

from keras_bsnn._types import Shape
from keras_bsnn.ops import _check

FIRST_FILTERS = 16
COARSEST = 4  # pixels, the least height and width that a stem makes by default


def stem_filters(
    stem: Sequence[int] | None, input_shape: Shape | None
) -> tuple[int, ...]:
    """The filters of the convolutions of a stem.

    Args:
        stem: Sequence of positive integers, or `None`: 16, 32, 64, and so on, as many
            as leave `COARSEST` pixels.
        input_shape: The shape of one image, or `None` if it is not known.

    Raises:
        ValueError: If `stem` is not as described, or `None` for images of unknown size.
    """
    if stem is not None:
        kind = "a sequence of positive integers, or None"
        return _check.interpreted("stem", kind, _integers, stem)
    height, width, *_ = _check_known(input_shape)
    count = 0
    size = min(height, width)
    while (halved := -(-size // 2)) >= COARSEST:
        size, count = halved, count + 1
    return tuple(FIRST_FILTERS * 2**i for i in range(count))


def _integers(values):
    return tuple(_check.integer("stem", value) for value in values)


def _check_known(input_shape):
    is_known = input_shape is not None and len(input_shape) == 3
    if not is_known or None in input_shape:
        kind = "the (height, width, channels) of an image where stem=None"
        raise _check.refusal("input_shape", kind, input_shape)
    is_first = keras.config.image_data_format() == "channels_first"
    return input_shape[1:] if is_first else input_shape


def stem(filters: Sequence[int], seeds: Sequence[int | None]) -> list:
    """Convolutions of 3 x 3 with a ReLU, each of which halves the height and width."""
    return [
        keras.layers.Conv2D(
            count,
            3,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed),
        )
        for count, seed in zip(filters, seeds, strict=True)
    ]
