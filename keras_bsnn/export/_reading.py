"""Reads layers as steps."""

import functools
import itertools

import keras
import numpy as np

from keras_bsnn import activations
from keras_bsnn.export.folding import affine_map, is_affine
from keras_bsnn.export.steps import DTYPE, Affine, Kept, Pointwise, Scaled, Sum
from keras_bsnn.layers import (
    ROAF,
    BatchNormDense,
    DepthStack,
    OrthogonalDense,
    ROAFDense,
)
from keras_bsnn.ops import roaf

LEAKY = {keras.activations.relu: 0.0, keras.activations.leaky_relu: 0.2}  # slopes
PACKAGE = __name__.partition(".")[0]
NUMBERS = itertools.count(1)
READERS = {}  # from a class to a function like `steps_of`


def steps_of(layer, largest_depth):
    """The steps of a layer in evaluation.

    A class derived from one that is known may compute anything: it is kept.

    Args:
        layer: a built layer, of Keras or of this package.
        largest_depth: of a stack that is taken apart.

    Raises:
        ValueError: no steps compute what the layer does.
    """
    is_quantized = getattr(layer, "quantization_mode", None) is not None
    read = _unchanged if is_quantized else READERS.get(type(layer), _unchanged)
    return read(layer, largest_depth)


def _unchanged(layer, largest_depth):
    if needs_package(layer):
        raise ValueError(
            f"`model` must have equals of its layers in Keras. {layer.name!r}, a "
            f"{type(layer).__name__}, has none: `keras_bsnn.export.saved_model` takes "
            "any model."
        )
    return [_kept(layer)]


def reads(*classes):
    """Decorates the reader of layers of these classes."""

    def decorate(reader):
        READERS.update(dict.fromkeys(classes, reader))
        return reader

    return decorate


def needs_package(thing):
    """Whether a layer, a model or a function cannot be loaded without this package."""
    config = keras.saving.serialize_keras_object(thing)
    return _is_in(PACKAGE, config)


def _is_in(package, config):
    if isinstance(config, dict):
        return any(_is_in(package, value) for value in config.values())
    if isinstance(config, (list, tuple)):
        return any(_is_in(package, value) for value in config)
    return isinstance(config, str) and config.split(">")[0].split(".")[0] == package


def _kept(layer):
    # The layers of a stack have one name, which those of a model must not; models
    # cannot do without.
    is_model = isinstance(layer, keras.Model)
    name = f"{layer.name}_{next(NUMBERS)}" if is_model else None
    config = {**layer.get_config(), "name": name}
    return Kept(functools.partial(type(layer).from_config, config), layer.get_weights())


@reads(keras.Sequential)
def _of_sequential(model, largest_depth):
    return _in_turn(model.layers, largest_depth)


@reads(DepthStack)
def _of_stack(stack, largest_depth):
    if stack.return_sequence:
        return _unchanged(stack, largest_depth)
    if is_affine(stack):
        return [_affine(stack)]
    if stack.depth > largest_depth:
        return [_kept(stack)]
    return _in_turn(stack.each_layer(), largest_depth)


def _in_turn(layers, largest_depth):
    return [step for layer in layers for step in steps_of(layer, largest_depth)]


@reads(keras.layers.Dense, OrthogonalDense, BatchNormDense)
def _of_dense(layer, largest_depth):
    return [_affine(layer, activation=None), *_of_activation(layer.activation)]


@reads(ROAFDense)
def _of_additive_filter(layer, largest_depth):
    filtered = _affine(layer, alpha=float(_rounded(layer.alpha)), beta=0.0)
    inner = _affine(layer, alpha=0.0, beta=1.0, activation=None)
    beta = _scaled(roaf.beta_of(layer.alpha, layer.beta))
    added = [inner, *_of_activation(layer.activation), beta]
    return [Sum(([filtered], added))]


@reads(ROAF)
def _of_recurrent_filter(layer, largest_depth):
    """With ReLU, for `h = relu(h) - relu(-h)`: three times the units do it.

    They are `relu(z)` of what is added, and both parts of the filtered state.
    """
    if layer.cell.activation is not keras.activations.relu or layer.return_state:
        return _unchanged(layer, largest_depth)
    cell, n = layer.cell, layer.cell.units
    kernel, recurrent, bias = _recurrent_weights(cell)
    beta = roaf.beta_of(cell.alpha, cell.beta)
    state = np.concatenate([beta * np.eye(n), np.eye(n), -np.eye(n)])
    filtered = keras.ops.convert_to_numpy(cell.filtered(np.eye(n, dtype="float32")))
    filtered = cell.alpha * filtered
    weights = [
        np.pad(kernel, ((0, 0), (0, 2 * n))),
        state @ np.concatenate([recurrent, filtered, -filtered], axis=1),
        np.pad(bias, (0, 2 * n)),
    ]
    shared = ("return_sequences", "go_backwards", "stateful")
    config = {"dtype": DTYPE, **{name: getattr(layer, name) for name in shared}}
    make = functools.partial(keras.layers.SimpleRNN, 3 * n, "relu", **config)
    return [Kept(make, weights), Affine(state, np.zeros(n))]


def _recurrent_weights(cell):
    kernel, recurrent, *bias = map(keras.ops.convert_to_numpy, cell.own_weights())
    return kernel, recurrent, bias[0] if bias else np.zeros(cell.units)


@reads(keras.layers.BatchNormalization)
def _of_normalization(layer, largest_depth):
    if layer.axis not in (-1, len(_built_for(layer)) - 1):
        return [_kept(layer)]
    kernel, bias = affine_map([layer], _built_for(layer)[-1])
    return [Scaled(np.diagonal(kernel).copy(), bias)]


@reads(keras.layers.Rescaling)
def _of_rescaling(layer, largest_depth):
    return [_scaled(layer.scale, layer.offset)]


@reads(
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
)
def _of_nothing(layer, largest_depth):
    """In evaluation."""
    return []


@reads(keras.layers.Activation)
def _of_activation_layer(layer, largest_depth):
    return _of_activation(layer.activation)


@reads(activations.GaussianPoincare, activations.DepthShaped, activations.Gained)
def _of_our_activation(layer, largest_depth):
    return _of_activation(layer)


def _affine(layer, **config):
    return Affine(*affine_map([layer], _built_for(layer)[-1], **config))


def _built_for(layer):
    return layer.get_build_config()["input_shape"]


def _of_activation(activation):
    if activation is None or activation is keras.activations.linear:
        return []
    if type(activation) is activations.DepthShaped:
        return [*_shaped(activation), _scaled(activation.scale, activation.shift)]
    if type(activation) is activations.GaussianPoincare:
        inner = _of_activation(activation.function)
        return [*inner, _scaled(activation.scale, activation.shift)]
    if type(activation) is activations.Gained:
        return [_scaled(activation.gain), *_of_activation(activation.function)]
    if isinstance(activation, keras.layers.Layer):
        return steps_of(activation, 0)
    if activation is activations.sin:  # of which Keras has an operation only
        return [Pointwise(keras.ops.sin, is_activation=False)]
    return [Pointwise(activation)]


def _shaped(activation):
    """`x + epsilon f(x)`; of a leaky ReLU, one with another slope."""
    epsilon = _rounded(activation.epsilon)
    slope = LEAKY.get(activation.function)
    if slope is None:
        inner = [*_of_activation(activation.function), _scaled(epsilon)]
        return [Sum(([], inner))]
    above, below = 1 + epsilon, 1 + slope * epsilon
    slope = below / above
    leaky = functools.partial(keras.layers.LeakyReLU, slope, dtype=DTYPE)
    return [Kept(leaky, []), Scaled(above, np.zeros(()))]


def _scaled(scale, shift=0.0):
    return Scaled(_rounded(scale), _rounded(shift))


def _rounded(constant):
    """In float32, as layers compute with it: the same rounding in each of many layers
    adds up.
    """
    return np.asarray(constant, DTYPE).astype("float64")
