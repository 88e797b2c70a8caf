"""What functions that act on each number make of a signal."""

import keras
import numpy as np
from keras import layers

from keras_bsnn import _facts, activations
from keras_bsnn._types import Activation
from keras_bsnn.shaping._registry import register_map
from keras_bsnn.shaping._signal import Signal

FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "tanh"),
    *("softplus", "softsign", "hard_sigmoid", "hard_silu", "hard_tanh", "mish", "celu"),
    *("log_sigmoid", "soft_shrink", "hard_shrink", "tanh_shrink", "squareplus"),
    *("threshold", "sparse_plus", "sparse_sigmoid", "exp", "expm1", "sin", "cos"),
    *("sinh", "cosh", "arctan", "arcsinh", "abs", "square", "negative", "erf", "sign"),
    *("clip", "power", "log1p", "sqrt", "logaddexp"),
)
IN_EVALUATION = _facts.IDENTITIES


def activated(activation: Activation, signal: Signal) -> Signal:
    """After the activation of a layer.

    Raises:
        ValueError: it acts on more than one number, and is no softmax.
    """
    if _facts.is_linear(activation):
        return signal
    if activation is keras.activations.softmax:
        return softmaxed(signal)
    return signal.pointwise(activations.get(activation))


def softmaxed(signal: Signal) -> Signal:
    """After a softmax over many channels: its sum is as many times a mean."""
    exponentials = signal.pointwise(keras.ops.exp)
    mean = exponentials.total.mean.mean()
    return exponentials.scaled(1 / (mean * signal.channels))


def check_axis(layer: keras.Layer, signal: Signal) -> None:
    """Raises `ValueError` if a layer does not act on the last axis alone."""
    rank = len(signal.places) + 2
    if [int(axis) % rank for axis in np.ravel(layer.axis)] != [rank - 1]:
        raise ValueError(
            f"{layer.name!r} must act on the last axis to have a map. Received: "
            f"axis={layer.axis}"
        )


@register_map(layers.Activation)
def activation(layer, signal):
    return activated(layer.activation, signal)


@register_map(layers.Softmax)
def softmax(layer, signal, mask=None):
    check_axis(layer, signal)
    return softmaxed(signal)


@register_map(layers.PReLU)
def prelu(layer, signal):
    """With one slope, their mean, for all channels and places."""
    slope = float(np.mean(keras.ops.convert_to_numpy(layer.alpha)))
    return signal.pointwise(lambda x: keras.ops.leaky_relu(x, slope))


@register_map(layers.Rescaling)
def rescaling(layer, signal):
    scale, offset = (np.asarray(x, "float64") for x in (layer.scale, layer.offset))
    return signal.scaled(scale).shifted(offset)


@register_map(*IN_EVALUATION)
def noise(layer, signal, training=False):
    """The identity in evaluation; Dropout in training scales what it keeps."""
    drops = isinstance(layer, (layers.Dropout, layers.GaussianDropout))
    return signal.dropped(layer.rate) if training and drops else signal


def function(operation, *args, **kwargs):
    """Of a pointwise function of `keras.ops`, with one tensor among its arguments."""
    signals = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Signal)]

    def of_tensor(x):
        given = keras.tree.map_structure(
            lambda y: x if isinstance(y, Signal) else y, (args, kwargs)
        )
        return operation.call(*given[0], **given[1])

    return signals[0].pointwise(of_tensor)


register_map(*(getattr(keras.ops, n) for n in FUNCTIONS if hasattr(keras.ops, n)))(
    function
)
