"""What a convolution or a pooling reads, at which places."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_bsnn._types import Array
from keras_bsnn.shaping._fields import displacements


class Window(NamedTuple):
    """What a convolution or a pooling reads, along each axis of places.

    Attributes:
        size, strides, dilation: tuples of integers.
        before: tuple of the numbers of places before the first that it reads.
        places: the numbers of places that there are afterwards.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def over(cls, places, size, strides=None, dilation=None, padding="valid"):
        """The window of a layer of Keras.

        Args:
            places: the numbers of places before it.
            size: tuple of integers.
            strides: the same, or `None` for ones.
            dilation: the same, or `None` for ones.
            padding: `"valid"`, `"same"` or `"causal"`.
        """
        strides, dilation = strides or (1,) * len(size), dilation or (1,) * len(size)
        before, after = [], []
        for n, k, s, d in zip(places, size, strides, dilation, strict=True):
            reach = d * (k - 1) + 1
            if padding == "valid":
                missing, count = 0, (n - reach) // s + 1
            elif padding == "causal":
                missing, count = reach - 1, -(-n // s)
            else:
                count = -(-n // s)
                missing = max((count - 1) * s + reach - n, 0)
            before.append(missing if padding == "causal" else missing // 2)
            after.append(count)
        return cls(tuple(size), strides, dilation, tuple(before), tuple(after))

    def taps(self):
        """Yields the index of each tap."""
        return itertools.product(*map(range, self.size))

    def read(self, x: Array, tap: tuple[int, ...]) -> Array:
        """What the tap reads for each place, zero beyond the edges."""
        for axis, index in enumerate(self.indices(tap)):
            is_inside = (index >= 0) & (index < x.shape[axis])
            taken = np.take(x, np.clip(index, 0, x.shape[axis] - 1), axis)
            shape = [-1 if i == axis else 1 for i in range(x.ndim)]
            x = taken * is_inside.reshape(shape)
        return x

    def mean(self, x: Array) -> Array:
        """The mean of what the taps read inside."""
        total, count = (
            np.sum([self.read(y, tap) for tap in self.taps()], axis=0)
            for y in (x, np.ones(x.shape))
        )
        return total / count

    def indices(self, tap):
        """Along each axis, the places that a tap reads."""
        return [
            np.arange(count) * s + d * t - b
            for count, s, d, t, b in zip(
                self.places, self.strides, self.dilation, tap, self.before, strict=True
            )
        ]

    def spread(self, across: Array, beyond: Sequence[int] | None = None) -> Array:
        """What is at those displacements that are between the places afterwards.

        Args:
            across: array with an axis of displacements for each of places.
            beyond: what is added to each displacement. Defaults to `None`, for nothing.
        """
        beyond = beyond or [0] * len(self.places)
        for axis, (count, stride, more) in enumerate(
            zip(self.places, self.strides, beyond, strict=True)
        ):
            index = displacements(count) * stride + more + across.shape[axis] // 2
            index = np.clip(index, 0, across.shape[axis] - 1)
            across = np.take(across, index, axis)
        return across
