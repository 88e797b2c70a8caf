"""Writes convolutions as layers of Keras."""

import keras
import numpy as np

from keras_bsnn._convolved import Convolved, Permuted
from keras_bsnn._steps import DTYPE
from keras_bsnn._types import Tensor

CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}
TRANSPOSED = {1: keras.layers.Conv1DTranspose, 2: keras.layers.Conv2DTranspose}
CROPPING = {1: keras.layers.Cropping1D, 2: keras.layers.Cropping2D}
PADDING = {1: keras.layers.ZeroPadding1D, 2: keras.layers.ZeroPadding2D}


def convolved(step: Convolved, x: Tensor) -> Tensor:
    """What a convolution makes of `x`, with an activation that Keras has."""
    make = _transposed if step.grid.is_transposed else _plain
    return make(step, x)


def permuted(step: Permuted, x: Tensor) -> Tensor:
    return keras.layers.Permute(step.axes, dtype=DTYPE)(x)


def _plain(step, x):
    grid = step.grid
    padding = "valid"
    if grid.is_circular:
        x = _wrapped(x, grid.margins)
    elif all(after - before in (0, 1) for before, after in grid.margins):
        padding = "same"
    else:
        x = _resized(PADDING, x, grid.margins)
    *sizes, _, filters = step.kernel.shape
    layer = CONVOLUTIONS[len(sizes)](
        filters,
        sizes,
        grid.strides,
        padding,
        data_format="channels_last",
        dilation_rate=grid.dilation_rate,
        groups=grid.groups,
        activation=step.activation,
        dtype=DTYPE,
    )
    return _with_weights(layer, x, [step.kernel, step.bias])


def _transposed(step, x):
    """Of as many pixels as reach into the image, of which what lies outside is cut."""
    grid, space = step.grid, x.shape[1:-1]
    *sizes, _, filters = step.kernel.shape
    padding, cut = "same", []
    if grid.is_circular:
        pairs = zip(sizes, grid.strides, grid.margins, strict=True)
        around = [((k - 1 - b) // s, (s - 1 + b) // s) for k, s, (b, _) in pairs]
        x, padding = _wrapped(x, around), "valid"
        for i, (first, _) in enumerate(around):
            start = first * grid.strides[i] + grid.margins[i][0]
            length = (x.shape[1 + i] - 1) * grid.strides[i] + sizes[i]
            cut.append((start, length - start - space[i] * grid.strides[i]))
    layer = TRANSPOSED[len(sizes)](
        filters,
        sizes,
        grid.strides,
        padding,
        data_format="channels_last",
        activation=step.activation,
        dtype=DTYPE,
    )
    kernel = np.swapaxes(step.kernel, -1, -2)
    return _resized(CROPPING, _with_weights(layer, x, [kernel, step.bias]), cut)


def _with_weights(layer, x, weights):
    y = layer(x)
    layer.set_weights(weights)
    return y


def _wrapped(x, margins):
    """Pads each axis of images with what is at its other end, however short it is."""
    for i, (before, after) in enumerate(margins):
        size = x.shape[1 + i]
        if not before and not after:
            continue
        if size is None:
            raise ValueError(
                "`model` must have inputs of known size, as those of keras.Input((28, "
                "28, 1)), for a circular convolution to become layers of Keras. "
                f"Received: images of shape {tuple(x.shape[1:])}"
            )
        (left, head), (right, tail) = divmod(before, size), divmod(after, size)
        last = [_cropped(x, i, (size - head, 0))] if head else []
        first = [_cropped(x, i, (0, size - tail))] if tail else []
        parts = [*last, *[x] * (left + 1 + right), *first]
        x = keras.layers.Concatenate(1 + i, dtype=DTYPE)(parts)
    return x


def _cropped(x, axis, pair):
    pairs = [(0, 0)] * (len(x.shape) - 2)
    pairs[axis] = pair
    return _resized(CROPPING, x, pairs)


def _resized(layers, x, pairs):
    """Cropped or padded by pairs of numbers, of which all may be 0."""
    if not np.any(pairs):
        return x
    rank = len(pairs)
    amounts = pairs[0] if rank == 1 else tuple(pairs)
    named = {} if rank == 1 else {"data_format": "channels_last"}
    return layers[rank](amounts, dtype=DTYPE, **named)(x)
