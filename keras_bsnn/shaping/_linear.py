"""What layers with kernels make of a signal: the energies of their weights say it."""

import keras
import numpy as np
from keras import layers

from keras_bsnn.shaping import _geometry
from keras_bsnn.shaping._pointwise import activated
from keras_bsnn.shaping._registry import register_map
from keras_bsnn.shaping._window import Window


def values(variable):
    """Those of a variable or tensor, in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), "float64")


def finished(layer, signal):
    """With the bias of a layer, and its activation."""
    if getattr(layer, "use_bias", False) and layer.bias is not None:
        signal = signal.shifted(values(layer.bias))
    return activated(layer.activation, signal)


@register_map(layers.Dense)
def dense(layer, signal):
    return finished(layer, _mixed(values(layer.kernel), signal))


def _mixed(kernel, signal):
    """After a matrix, whose last axes are inputs and outputs."""
    energy = np.square(kernel).sum(-2).mean()
    return signal.mixed(lambda f, root: f.scaled(energy), kernel.shape[-1])


@register_map(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def convolution(layer, signal):
    kernel = values(layer.kernel)
    energies = np.square(kernel).sum(-2).mean(-1)
    return finished(layer, _tapped(layer, energies, kernel.shape[-1], signal))


def _tapped(layer, energies, channels, signal):
    """After independent taps of these energies."""
    check_last(layer)
    window = window_of(layer, signal.places)
    return signal.mixed(
        lambda f, root: _geometry.convolved(f, root, energies, window), channels
    )


def window_of(layer, places):
    """What a convolution reads."""
    geometry = layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding
    return Window.over(places, *geometry)


def check_last(layer):
    """Raises `ValueError` if the channels are not the last axis."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ValueError(
            f"`model` must have its channels last: {layer.name!r} has "
            f"data_format={layer.data_format!r}."
        )


@register_map(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise(layer, signal):
    return finished(layer, _depthwise(layer, values(layer.kernel), signal))


def _depthwise(layer, kernel, signal):
    """Of each channel alone: what comes out is Gaussian only once it is mixed."""
    energies = np.square(kernel).mean((-2, -1))
    return _tapped(layer, energies, kernel.shape[-2] * kernel.shape[-1], signal)


@register_map(layers.SeparableConv1D, layers.SeparableConv2D)
def separable(layer, signal):
    signal = _depthwise(layer, values(layer.depthwise_kernel), signal)
    return finished(layer, _mixed(values(layer.pointwise_kernel), signal))


@register_map(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def transposed(layer, signal):
    check_last(layer)
    kernel = values(layer.kernel)  # with axes of taps, outputs and inputs
    energies = np.square(kernel).sum(-1).mean(-1)
    shape = layer.compute_output_shape((None, *signal.places, kernel.shape[-1]))
    places = shape[1:-1]
    window = window_of(layer, places)

    def change(field, root):
        return _geometry.transposed(field, root, energies, window, places)

    return finished(layer, signal.mixed(change, kernel.shape[-2]))
