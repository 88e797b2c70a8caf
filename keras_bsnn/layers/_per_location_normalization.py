"""Normalization of the channels of each place."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _steps
from keras_bsnn._types import Config, Shape, Tensor
from keras_bsnn.layers import _conv_arguments
from keras_bsnn.ops import _check

TINY = 1e-12  # below any mean of squares but that of zeros, which stay zeros


@keras.saving.register_keras_serializable(package="keras_bsnn")
class PerLocationNormalization(keras.layers.Layer):
    """Scales the channels of each place to a root mean square of 1.

    The signals of an orthogonal network keep their size from layer to layer if they
    enter it with this one: what enters must be normalized at each place, for a
    convolution with one tap mixes no places.

    A channel of ones may join the others first. It gives blank places a size, and tells
    faint places from bright ones, which else become equal.

    Args:
        append_one: Boolean, whether to append a channel of ones before. It should be
            `True` for images, and may be `False` for what a layer with a bias made of
            them. Defaults to `True`.
        data_format: String, `"channels_last"` or `"channels_first"`. Defaults to
            `None`, which stands for `keras.config.image_data_format()`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, ..., channels)`, or `(batch,
            channels, ...)` if `data_format="channels_first"`.

    Returns:
        Tensor of the same shape, or with one more channel, whose mean of squares over
        the channels is 1 at each place. Places of zeros alone stay zeros.

    Raises:
        ValueError: If an argument is not as described, or the inputs are not of
            floating point.

    Source: Martens et al., arXiv 2110.01765 ("per-location normalization").

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.PerLocationNormalization()
    >>> images = layer(keras.ops.zeros((1, 28, 28, 3)))
    >>> images.shape
    TensorShape([1, 28, 28, 4])
    >>> [float(x) for x in images[0, 0, 0]]
    [0.0, 0.0, 0.0, 2.0]
    """

    def __init__(
        self, append_one: bool = True, data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.append_one = _check.boolean("append_one", append_one)
        self.data_format = _conv_arguments.data_format(data_format)

    def build(self, input_shape: Shape) -> None:
        axes = {self._axis: input_shape[self._axis]}
        self.input_spec = keras.InputSpec(ndim=len(input_shape), axes=axes)

    @property
    def _axis(self):
        return _conv_arguments.channel_axis(self.data_format)

    @property
    def _channels(self):
        return self.input_spec.axes[self._axis]

    def call(self, inputs: Tensor) -> Tensor:
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "`inputs` must be of floating point: cast and standardize them first. "
                f"Received: dtype={keras.backend.standardize_dtype(inputs.dtype)}"
            )
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        squares = ops.sum(ops.square(x), axis=self._axis, keepdims=True)
        size = self._channels + self.append_one
        if self.append_one:
            ones = ops.ones_like(squares)
            x = ops.concatenate([x, ones], axis=self._axis)
            squares = squares + ones
        scale = ops.rsqrt(ops.maximum(squares / size, TINY))
        return ops.cast(x * scale, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = [*input_shape]
        shape[self._axis] += self.append_one
        return tuple(shape)

    def export_steps(self) -> list | None:
        """What `keras_bsnn.export.to_keras` makes of the layer."""
        channels = self._channels
        steps = []
        if self.append_one:
            if self.data_format == "channels_first":
                return None
            one = np.zeros(channels + 1)
            one[-1] = 1
            steps = [_steps.Affine(np.eye(channels, channels + 1), one)]
        unit = functools.partial(
            keras.layers.UnitNormalization, self._axis, dtype=_steps.DTYPE
        )
        size = (channels + self.append_one) ** 0.5
        return [*steps, _steps.Kept(unit, []), _steps.scaled(size)]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "append_one": self.append_one,
            "data_format": self.data_format,
        }
