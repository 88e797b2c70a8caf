"""What operations on places make of a signal: pooling, shapes, edges."""

import math

import keras
import numpy as np
from keras import layers

from keras_bsnn.shaping import _fields, _geometry, _max
from keras_bsnn.shaping._linear import check_last
from keras_bsnn.shaping._registry import register_map
from keras_bsnn.shaping._window import Window

AVERAGE = [getattr(layers, f"AveragePooling{n}D") for n in (1, 2, 3)]
MAXIMUM = [getattr(layers, f"MaxPooling{n}D") for n in (1, 2, 3)]
GLOBAL = [getattr(layers, f"GlobalAveragePooling{n}D") for n in (1, 2, 3)]
GLOBAL_MAXIMUM = [getattr(layers, f"GlobalMaxPooling{n}D") for n in (1, 2, 3)]
PADDING = [getattr(layers, f"ZeroPadding{n}D") for n in (1, 2, 3)]
CROPPING = [getattr(layers, f"Cropping{n}D") for n in (1, 2, 3)]
UPSAMPLING = [getattr(layers, f"UpSampling{n}D") for n in (1, 2, 3)]


def _window(layer, places):
    check_last(layer)
    return Window.over(places, layer.pool_size, layer.strides, None, layer.padding)


@register_map(*AVERAGE)
def average_pooling(layer, signal):
    window = _window(layer, signal.places)
    return signal.spatial(
        lambda f, root: _geometry.averaged(f, root, window), window.mean
    )


@register_map(*MAXIMUM)
def max_pooling(layer, signal):
    return _max.pooled(signal, _window(layer, signal.places))


@register_map(*GLOBAL)
def global_pooling(layer, signal, mask=None):
    check_last(layer)
    return _over_all(layer, signal, lambda f: f.over_all_pairs(), np.mean)


@register_map(*GLOBAL_MAXIMUM)
def global_max_pooling(layer, signal):
    check_last(layer)
    pooled = _max.pooled(signal, Window.over(signal.places, signal.places))
    return pooled if layer.keepdims else pooled.reshaped(())


def _over_all(layer, signal, number, mean):
    places = (1,) * len(signal.places) if layer.keepdims else ()

    def change(field, root):
        return _fields.constant(number(field), places, number(field))

    return signal.spatial(change, lambda x: np.full(places, mean(x)))


@register_map(layers.Flatten)
def flatten(layer, signal):
    check_last(layer)
    return signal.reshaped(())


@register_map(layers.Reshape)
def reshape(layer, signal):
    """Of places, of channels as places, or of places as channels."""
    total = math.prod(signal.places) * signal.channels
    shape = [
        n if n != -1 else int(total // -math.prod(layer.target_shape))
        for n in layer.target_shape
    ]
    return signal.reshaped(tuple(shape[:-1]), shape[-1])


@register_map(layers.Permute)
def permute(layer, signal):
    order = [axis - 1 for axis in layer.dims]
    if order[-1] != len(order) - 1:
        raise ValueError(
            f"{layer.name!r} must keep the channels last to have a map. Received: "
            f"dims={layer.dims}"
        )
    order = order[:-1]

    def transposed(x):
        return np.transpose(x, order)

    return signal.rearranged(lambda f, root: f.map(transposed), transposed)


@register_map(*PADDING)
def zero_padding(layer, signal):
    check_last(layer)
    before, after = zip(*_pairs(layer.padding, len(signal.places)), strict=True)
    signal = signal if signal.keeps_zero else signal.settled
    return signal.rearranged(
        lambda f, root: _geometry.padded(f, root, before, after),
        lambda x: np.pad(x, [*zip(before, after, strict=True)]),
    )


@register_map(*CROPPING)
def cropping(layer, signal):
    check_last(layer)
    pairs = _pairs(layer.cropping, len(signal.places))
    ends = [(a, n - b) for n, (a, b) in zip(signal.places, pairs, strict=True)]
    return signal.rearranged(
        lambda f, root: _geometry.cropped(f, root, ends),
        lambda x: x[tuple(slice(*pair) for pair in ends)],
    )


def _pairs(given, rank):
    """What a layer keeps as a pair for each axis, and a single one without."""
    return [tuple(given)] if rank == 1 else [tuple(pair) for pair in given]


@register_map(*UPSAMPLING)
def upsampling(layer, signal):
    check_last(layer)
    if getattr(layer, "interpolation", "nearest") != "nearest":
        raise ValueError(
            f"{layer.name!r} must repeat places to have a map. Received: "
            f"interpolation={layer.interpolation!r}"
        )
    size = layer.size if isinstance(layer.size, tuple) else (layer.size,)
    return signal.rearranged(
        lambda f, root: _geometry.repeated(f, root, size), lambda x: _repeated(x, size)
    )


def _repeated(x, sizes):
    for axis, size in enumerate(sizes):
        x = np.repeat(x, size, axis)
    return x


@register_map(keras.ops.mean)
def mean(operation, signal):
    """Over all places."""
    rank = len(signal.places) + 2
    given = range(rank) if operation.axis is None else np.ravel(operation.axis)
    axes = sorted(int(axis) % rank for axis in given)
    if axes != [*range(1, rank - 1)]:
        raise ValueError(
            f"{operation.name!r} must be over all places to have a map. Received: "
            f"axis={operation.axis}"
        )
    return _over_all(operation, signal, lambda f: f.over_all_pairs(), np.mean)
