"""Layers with additive filters of images, and their gradients."""

import itertools
import math

from keras import ops

from keras_bsnn.layers._filters import Filter
from keras_bsnn.layers._moves import rolled
from keras_bsnn.layers._roaf_rule import ROAFRule

DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))


class ROAFConvRule(ROAFRule):
    """`alpha move(filter(h)) + beta activation(convolution(h) + bias)`.

    The carry has the axes `(batch, height, width, channels)`. The filter acts on the
    channels; then a fourth of them moves by one pixel in each direction. The
    convolution, with circular padding, is a product with what each pixel sees.

    Args:
        filter, activation, alpha, beta, dtype: As of `ROAFRule`.
        taps: A `Taps`.
        channels_first: Boolean, whether channels come before space in the inputs.
    """

    chunk = 8  # what pixels see is as many times larger as there are taps
    unroll = 4

    def __init__(self, filter, activation, alpha, beta, dtype, taps, channels_first):
        super().__init__(Moving(filter), activation, alpha, beta, dtype)
        self.taps = taps
        self.channels_first = channels_first

    def enter(self, inputs):
        images = ops.moveaxis(inputs, 1, -1) if self.channels_first else inputs
        return super().enter(images)

    def leave(self, carry):
        images = super().leave(carry)
        return ops.moveaxis(images, -1, 1) if self.channels_first else images

    def _seen(self, x):
        return self.taps.seen(x)

    def _matrix(self, kernel):
        """Of shape `(taps * channels, filters)`, with the axis of layers if any."""
        *layers, height, width, channels, filters = kernel.shape
        return ops.reshape(kernel, (*layers, height * width * channels, filters))

    def _through(self, of_bend, kernel):
        turned = self._matrix(ops.swapaxes(ops.cast(kernel, self.dtype), -1, -2))
        seen = self.taps.seen(ops.cast(of_bend, self.dtype), backwards=True)
        return ops.cast(ops.matmul(seen, turned), of_bend.dtype)

    def gradients(self, prepared, pulled, layers):
        (kernel, *bias), shared = super().gradients(prepared, pulled, layers)
        return [ops.reshape(kernel, layers.weights[0].shape), *bias], shared


class Taps:
    """What each pixel sees of its neighbors.

    Args:
        kernel_size, dilation_rate: Pairs of integers.
    """

    def __init__(self, kernel_size, dilation_rate):
        along = []
        for size, rate in zip(kernel_size, dilation_rate, strict=True):
            before = (size - 1) * rate // 2
            along.append([rate * i - before for i in range(size)])
        self.places = tuple(itertools.product(*along))

    def seen(self, x, backwards=False):
        """The channels of the pixels at all places, one after the other.

        Args:
            x: Tensor of shape `(..., height, width, channels)`.
            backwards: Boolean, whether to look in the opposite direction.
        """
        sign = 1 if backwards else -1
        views = [_rolled(x, sign * i, sign * j) for i, j in self.places]
        return ops.concatenate(views, axis=-1)


class Moving(Filter):
    """A filter of channels, and then a move of their pixels, which is orthogonal too.

    Args:
        filter: A `_filters.Filter`.
    """

    def __init__(self, filter):
        self.filter = filter

    def apply(self, x, *parameters):
        return _moved(self.filter.apply(x, *parameters), 1)

    def adjoint(self, x, *parameters):
        return self.filter.adjoint(_moved(x, -1), *parameters)


def _moved(x, sign):
    """Moves each of four groups of channels by a pixel."""
    size = math.ceil(x.shape[-1] / len(DIRECTIONS))
    starts = range(0, x.shape[-1], size)
    groups = [
        _rolled(x[..., start : start + size], sign * i, sign * j)
        for start, (i, j) in zip(starts, DIRECTIONS, strict=False)
    ]
    return ops.concatenate(groups, axis=-1)


def _rolled(x, down, right):
    """Moves images in a circle."""
    for axis, step in ((-3, down), (-2, right)):
        x = rolled(x, len(x.shape) + axis, step)
    return x
