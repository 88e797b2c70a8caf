"""Which share of its units the activation of a layer lets no gradient through."""

import contextlib

import keras
from keras import ops

from keras_bsnn import _backend, activations

THRESHOLD = 0.01  # of the slope of an activation
POINTWISE = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)


def observed_call(layer, call, *args, **kwargs):
    """What `call` of a layer returns, and that share: NaN without an activation."""
    with _observed(layer) as found:
        y = call(*args, **kwargs)
    if isinstance(layer, POINTWISE):
        found.add(call, args[0])
    return y, found.share()


class _Observed:
    """The mean share over the activations that were called, a scalar tensor."""

    def __init__(self):
        self.shares = []

    def watch(self, activation):
        """The same function, which is observed."""

        def watched(x):
            self.add(activation, x)
            return activation(x)

        return watched

    def add(self, function, x):
        (y,), pull = _backend.vjp(lambda x: (function(x),), x)
        (slopes,) = pull((ops.ones_like(y),))
        is_flat = ops.abs(ops.cast(slopes, "float32")) < THRESHOLD
        self.shares.append(ops.mean(ops.cast(is_flat, "float32")))

    def share(self):
        if not self.shares:
            return ops.convert_to_tensor(float("nan"), "float32")
        return ops.mean(ops.stack(self.shares))


@contextlib.contextmanager
def _observed(layer):
    """Yields an `_Observed` of the activations that a layer calls within it."""
    found = _Observed()
    parts = [part for part in _parts(layer) if _has_pointwise_activation(part)]
    before = [part.activation for part in parts]
    try:
        for part, activation in zip(parts, before, strict=True):
            # Not as an attribute of Keras, which would track it.
            object.__setattr__(part, "activation", found.watch(activation))
        yield found
    finally:
        for part, activation in zip(parts, before, strict=True):
            object.__setattr__(part, "activation", activation)


def _parts(layer):
    """The layer, or those that a model is made of."""
    if isinstance(layer, keras.Model):
        return [part for inner in layer.layers for part in _parts(inner)]
    return [layer]


def _has_pointwise_activation(layer):
    activation = vars(layer).get("activation")
    return callable(activation) and activations.is_pointwise(activation)
