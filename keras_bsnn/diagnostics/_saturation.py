"""The share of units whose activation has a slope of nearly zero."""

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _facts

THRESHOLD = 0.01  # of the slope of an activation


class Saturation:
    """Collects the share of saturated units from the activations that are called."""

    def __init__(self):
        self._shares, self._was_called = [], False

    def watch(self, layer: keras.layers.Layer, copy: keras.layers.Layer) -> Callable:
        """Watches the activation of `copy`, and returns what to call for it.

        For `instrumented`, whose arguments these are.
        """
        activation = vars(copy).get("activation")
        if callable(activation) and _facts.is_pointwise(activation):
            vars(copy)["activation"] = self._watched(activation)
        return self._watched(copy.call) if _facts.is_pointwise(layer) else copy.call

    def from_here(self, function: Callable) -> Callable:
        """Returns a function that forgets what was collected, then calls `function`."""

        @functools.wraps(function)
        def fresh(*args, **kwargs):
            self._shares.clear()
            self._was_called = True
            return function(*args, **kwargs)

        return fresh

    def take(self):
        """Returns the mean share, a float32 scalar: NaN if no activation was called.

        The rule of a block that has one calls the activation without the block, also
        for gradients, which must not count: only the last of these calls does.
        """
        shares = self._shares if self._was_called else self._shares[-1:]
        share = ops.mean(ops.stack(shares)) if shares else ops.cast(np.nan, "float32")
        self._shares, self._was_called = [], False
        return share

    def _watched(self, function):
        def watched(x):
            y, slopes = _backend.value_and_slope(function, x)
            is_flat = ops.abs(ops.cast(slopes, "float32")) < THRESHOLD
            self._shares.append(ops.mean(ops.cast(is_flat, "float32")))
            return y

        vars(watched)["is_pointwise"] = True
        return watched
