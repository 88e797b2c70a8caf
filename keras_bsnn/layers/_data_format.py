"""Where the channels of images are."""

import keras

from keras_bsnn.ops import _check

FORMATS = ("channels_last", "channels_first")


def checked(data_format: str | None) -> str:
    """One of `FORMATS`; that of Keras' configuration for `None`."""
    if data_format is None:
        return keras.config.image_data_format()
    if data_format not in FORMATS:
        kind = f"one of {list(FORMATS)}, or None"
        raise _check.refusal("data_format", kind, data_format, known=FORMATS)
    return data_format


def channel_axis(data_format: str) -> int:
    """The axis of the channels in a batch of images."""
    return 1 if data_format == "channels_first" else -1
