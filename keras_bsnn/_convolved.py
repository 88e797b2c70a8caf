"""Convolutions among the steps of `_steps`, and the rules that join them to others."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_bsnn._steps import RULES, Pointwise, Scaled


class Grid(NamedTuple):
    """Which pixels a convolution reads, a number for each axis of space.

    Attributes:
        strides: tuple of integers.
        dilation_rate: tuple of integers.
        margins: tuple of pairs, how many pixels are read before and after the image.
        is_circular: whether these are of its other end; they are zeros otherwise.
        groups: the number of parts of the channels that are convolved on their own.
        is_transposed: whether it is the transpose of that, of one group, which makes
            images larger by the strides.
    """

    strides: tuple
    dilation_rate: tuple
    margins: tuple
    is_circular: bool
    groups: int = 1
    is_transposed: bool = False


class Convolved(NamedTuple):
    """`activation(convolution(x) + bias)` of images with channels last.

    Attributes:
        kernel: array of shape `(*sizes, channels / groups, filters)`. The transpose
            sends a pixel to where the taps are, and does not turn it round.
        bias: array of shape `(filters,)`.
        grid: a `Grid`.
        activation: an activation of Keras, or `None`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    grid: Grid
    activation: Callable | None = None


class Permuted(NamedTuple):
    """Axes in another order.

    Attributes:
        axes: tuple of integers, as of `keras.layers.Permute`, from 1 on.
    """

    axes: tuple


def _scaled_convolved(first, second):
    """Unless a shift is not the same at all pixels, as at the edge of zeros."""
    kernel, bias, grid, _ = second
    scale, shift = (np.asarray(z) for z in first)
    if scale.ndim > 1 or shift.ndim > 1 or (shift.any() and not _is_uniform(grid)):
        return None
    scale, shift = (_of_each_tap(z, kernel, grid.groups) for z in (scale, shift))
    of_shift = (kernel * shift).reshape(-1, len(bias)).sum(0)
    return second._replace(kernel=kernel * scale, bias=bias + of_shift)


def _is_uniform(grid):
    """Whether a convolution makes a constant image of a constant image."""
    has_edges = np.any(grid.margins) and not grid.is_circular
    return not has_edges and not grid.is_transposed


def _of_each_tap(values, kernel, groups):
    """One number for each channel as an array of `(channels / groups, filters)`."""
    *_, channels, filters = kernel.shape
    of_groups = np.broadcast_to(values, groups * channels).reshape(groups, channels)
    return np.repeat(of_groups, filters // groups, axis=0).T


def _convolved_scaled(first, second):
    scale, shift = (np.asarray(z) for z in second)
    if first.activation or scale.ndim > 1 or shift.ndim > 1:
        return None
    return first._replace(kernel=first.kernel * scale, bias=first.bias * scale + shift)


def _convolved_pointwise(first, second):
    return None if first.activation else first._replace(activation=second.function)


def _permuted_permuted(first, second):
    """Nothing, as a scale of 1, where the second undoes the first."""
    axes = tuple(first.axes[axis - 1] for axis in second.axes)
    if axes == tuple(sorted(axes)):
        return Scaled(np.ones(()), np.zeros(()))
    return Permuted(axes)


RULES.update(
    {
        (Scaled, Convolved): _scaled_convolved,
        (Convolved, Scaled): _convolved_scaled,
        (Convolved, Pointwise): _convolved_pointwise,
        (Permuted, Permuted): _permuted_permuted,
    }
)
