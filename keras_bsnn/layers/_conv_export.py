"""What an orthogonal convolution computes, as steps for `keras_bsnn.export`."""

import keras
import numpy as np

from keras_bsnn import _facts, _steps
from keras_bsnn._convolved import Convolved, Grid, Permuted


def steps(layer, kernel, geometry):
    """The steps of a layer in evaluation.

    Axes are moved where channels come first, as Keras has no such convolution on
    processors: those of consecutive layers cancel out.

    Args:
        layer: A built convolution of this package.
        kernel: Array in float64, its explicit kernel.
        geometry: A `_conv_geometry.Geometry`.
    """
    bias = np.zeros(layer.filters)
    if layer.use_bias:
        bias = _steps.rounded(keras.ops.convert_to_numpy(layer.bias))
    margins = tuple((r // 2, r - r // 2) for r in geometry.reach)
    grid = Grid(
        geometry.strides,
        geometry.dilation_rate,
        margins,
        geometry.padding != "same",
        layer.groups,
    )
    if layer.is_transposed:
        kernel, grid = _transposed(kernel, grid)
    convolved = Convolved(kernel, bias, grid)
    activation = _steps.of_activation(layer.activation)
    if layer.data_format == "channels_last":
        return [convolved, *activation]
    space = range(2, 2 + geometry.rank)
    to = Permuted((*space, 1))
    back = Permuted((1 + geometry.rank, *range(1, 1 + geometry.rank)))
    if _facts.is_pointwise(layer.activation):
        return [to, convolved, *activation, back]
    return [to, convolved, back, *activation]


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
