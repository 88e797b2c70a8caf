"""The share of units whose activation has a slope of nearly zero."""

import functools
from collections.abc import Callable

import keras
from keras import ops

from keras_bsnn import _backend, _facts

THRESHOLD = 0.01  # of the slope of an activation


class Saturation:
    """Collects the share of saturated units from the activations that are called."""

    def __init__(self):
        self._shares = []

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
            return function(*args, **kwargs)

        return fresh

    def share(self):
        """Returns the mean share, a float32 scalar: NaN if no activation was called."""
        if not self._shares:
            return ops.convert_to_tensor(float("nan"), "float32")
        return ops.mean(ops.stack(self._shares))

    def _watched(self, function):
        def watched(x):
            self._shares.append(_saturated(function, x))
            return function(x)

        watched.is_pointwise = True
        return watched


def _saturated(function, x):
    (y,), pull = _backend.vjp(lambda x: (function(x),), x)
    (slopes,) = pull((ops.ones_like(y),))
    is_flat = ops.abs(ops.cast(slopes, "float32")) < THRESHOLD
    return ops.mean(ops.cast(is_flat, "float32"))
