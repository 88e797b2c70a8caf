"""Arguments that convolutions share."""

import keras

from keras_bsnn.ops import _check

FORMATS = ("channels_last", "channels_first")


def sizes(name: str, value: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    """One positive integer for each axis of space, of one for all or one for each."""
    values = value if isinstance(value, (tuple, list)) else (value,) * rank
    if len(values) != rank:
        raise _check.refusal(name, f"an integer, or a tuple of {rank}", value)
    return tuple(_check.integer(name, size) for size in values)


def data_format(value: str | None) -> str:
    """Where the channels are; `None` stands for what Keras is set to."""
    if value is None:
        return keras.config.image_data_format()
    if value not in FORMATS:
        kind = f"one of {list(FORMATS)}, or None"
        raise _check.refusal("data_format", kind, value, known=FORMATS)
    return value


def channel_axis(data_format: str) -> int:
    """The axis of the channels in a batch of images."""
    return 1 if data_format == "channels_first" else -1
