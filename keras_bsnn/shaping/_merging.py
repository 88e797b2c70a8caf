"""What operations of several tensors make of signals."""

import keras
import numpy as np
from keras import layers

from keras_bsnn.shaping import _sums
from keras_bsnn.shaping._registry import register_map
from keras_bsnn.shaping._signal import Signal


@register_map(layers.Add)
def add(layer, signals):
    return _sums.added(list(signals))


@register_map(layers.Subtract)
def subtract(layer, signals):
    return _sums.added(list(signals), [1.0, -1.0])


@register_map(layers.Average)
def average(layer, signals):
    return _sums.added(list(signals), [1 / len(signals)] * len(signals))


@register_map(layers.Multiply)
def multiply(layer, signals):
    return _sums.multiplied(list(signals))


@register_map(layers.Concatenate)
def concatenate(layer, signals):
    return _joined(layer, signals)


@register_map(keras.ops.concatenate)
def concatenate_tensors(operation, signals, *args, **kwargs):
    return _joined(operation, signals)


def _joined(operation, signals):
    rank = len(signals[0].places) + 2
    if operation.axis % rank != rank - 1:
        raise ValueError(
            f"{operation.name!r} must join channels, the last axis, to have a map. "
            f"Received: axis={operation.axis}"
        )
    return _sums.concatenated(list(signals))


@register_map(keras.ops.add)
def plus(operation, a, b):
    if isinstance(a, Signal) and isinstance(b, Signal):
        return _sums.added([a, b])
    signal, constant = _and_numbers(a, b)
    return signal.shifted(constant)


@register_map(keras.ops.subtract)
def minus(operation, a, b):
    if isinstance(a, Signal) and isinstance(b, Signal):
        return _sums.added([a, b], [1.0, -1.0])
    if isinstance(a, Signal):
        return a.shifted(-_numbers(b))
    return b.scaled(-1.0).shifted(_numbers(a))


@register_map(keras.ops.multiply)
def times(operation, a, b):
    if isinstance(a, Signal) and isinstance(b, Signal):
        return _sums.multiplied([a, b])
    signal, constant = _and_numbers(a, b)
    return signal.scaled(constant)


@register_map(keras.ops.divide, keras.ops.true_divide)
def over(operation, a, b):
    if isinstance(a, Signal) and not isinstance(b, Signal):
        return a.scaled(1 / _numbers(b))
    if not isinstance(a, Signal):
        return b.pointwise(lambda x: a / x)
    return _sums.multiplied([a, b.pointwise(keras.ops.reciprocal)])


def _and_numbers(a, b):
    """The one that is a signal, and the numbers that the other is."""
    return (a, _numbers(b)) if isinstance(a, Signal) else (b, _numbers(a))


def _numbers(constant):
    return np.asarray(keras.ops.convert_to_numpy(constant), "float64")
