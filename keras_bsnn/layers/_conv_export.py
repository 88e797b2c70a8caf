"""What convolutions compute, as steps for `keras_bsnn.export`."""

import numpy as np

from keras_bsnn import _facts, _steps
from keras_bsnn._convolved import Convolved, Grid, Permuted


def of_images(layer, steps):
    """The steps of a layer in evaluation, with its activation.

    Axes are moved where channels come first, as Keras has no such convolution on
    processors: those of consecutive layers cancel out.

    Args:
        layer: A built convolution of this package.
        steps: List of steps, what it computes of channels that come last, before the
            activation.
    """
    activation = _steps.of_activation(layer.activation)
    if layer.data_format == "channels_last":
        return [*steps, *activation]
    to, back = moves_of_axes(layer.rank)
    if _facts.is_pointwise(layer.activation):
        return [to, *steps, *activation, back]
    return [to, *steps, back, *activation]


def moves_of_axes(rank):
    """From channels that come first to those that come last, and back."""
    to = Permuted((*range(2, 2 + rank), 1))
    return to, Permuted((1 + rank, *range(1, 1 + rank)))


def convolved(kernel, bias, geometry, groups, is_transposed):
    """The step of an orthogonal convolution.

    Args:
        kernel: Array in float64, the explicit kernel.
        bias: Array of shape `(filters,)`.
        geometry: A `_conv_geometry.Geometry`.
        groups: Integer.
        is_transposed: Boolean.
    """
    grid = Grid(
        geometry.strides,
        geometry.dilation_rate,
        _margins(geometry.reach),
        geometry.padding != "same",
        groups,
    )
    if is_transposed:
        kernel, grid = _transposed(kernel, grid)
    return Convolved(kernel, bias, grid)


def around(kernel, bias, dilation_rate=(1, 1)):
    """The step of a plain convolution of stride 1 that goes around the image.

    Args:
        kernel: Array of shape `(height, width, channels, filters)`.
        bias: Array of shape `(filters,)`.
        dilation_rate: Pair of integers.
    """
    pairs = zip(kernel.shape, dilation_rate, strict=False)
    margins = _margins((size - 1) * rate for size, rate in pairs)
    grid = Grid((1, 1), tuple(dilation_rate), margins, is_circular=True)
    return Convolved(kernel.astype("float64"), bias.astype("float64"), grid)


def _margins(reach):
    """How far each axis is read before a pixel and after it."""
    return tuple((r // 2, r - r // 2) for r in reach)


def _transposed(kernel, grid):
    """The kernel and the grid of the transpose, which without strides is no other."""
    *sizes, filters, channels = kernel.shape
    parts = kernel.reshape(*sizes, filters, grid.groups, -1)
    if max(grid.strides) == 1:
        turned = np.flip(parts, axis=tuple(range(len(sizes))))
        kernel = np.swapaxes(turned, -1, -3).reshape(*sizes, -1, grid.groups * filters)
        margins = tuple(pair[::-1] for pair in grid.margins)
        return kernel, grid._replace(margins=margins)
    whole = np.zeros((*sizes, *parts.shape[-2:], grid.groups, filters))
    for i in range(grid.groups):
        whole[..., i, :, i, :] = np.swapaxes(parts[..., i, :], -1, -2)
    kernel = whole.reshape(*sizes, channels, -1)
    return kernel, grid._replace(groups=1, is_transposed=True)
