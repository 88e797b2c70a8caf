"""What layers compute, as a few kinds of steps, and the rules that join them.

A network is a list of steps. All numbers are float64, so that joining them rounds once.
Layers make such lists of themselves in their methods `export_steps()`.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bsnn import _backend, _facts
from keras_bsnn._types import Shape

DTYPE = "float32"  # of the layers that they become
LEAKY = {keras.activations.relu: 0.0, keras.activations.leaky_relu: 0.2}  # slopes


class Affine(NamedTuple):
    """`activation(x @ kernel + bias)`."""

    kernel: np.ndarray
    bias: np.ndarray
    activation: Callable | None = None


class Scaled(NamedTuple):
    """`scale * x + shift`, numbers or an array of one for each feature."""

    scale: np.ndarray
    shift: np.ndarray


class Pointwise(NamedTuple):
    """`function(x)`, an activation of Keras."""

    function: Callable


class Sum(NamedTuple):
    """The sum of what lists of steps make of the same input."""

    branches: tuple


class Kept(NamedTuple):
    """A layer as it is.

    Attributes:
        make: a function without arguments that returns the layer.
        weights: list of the values of its weights.
    """

    make: Callable
    weights: list


class Layers(NamedTuple):
    """Layers, one after the other, each of which is then read as steps of its own.

    Attributes:
        layers: iterable of built layers. Each is read before the next one is taken.
        depth: the number of layers of a stack; 0 if they are not a stack.
    """

    layers: Iterable
    depth: int = 0


def simplified(steps):
    """Fewer steps that compute the same."""
    found: list[Any] = []
    for step in steps:
        if isinstance(step, Sum):
            step = Sum(tuple(simplified(branch) for branch in step.branches))
        while found and (joined := _joined(found[-1], step)) is not None:
            found.pop()
            step = joined
        found.append(step)
    return found


def _joined(first, second):
    """One step instead of two, or `None`."""
    rule = RULES.get((type(first), type(second)))
    return rule and rule(first, second)


def _scaled_scaled(first, second):
    scale, shift = second
    return Scaled(first.scale * scale, first.shift * scale + shift)


def _scaled_affine(first, second):
    kernel, bias, activation = second
    scale, shift = (np.broadcast_to(z, len(kernel)) for z in first)
    return Affine(scale[:, None] * kernel, shift @ kernel + bias, activation)


def _affine_scaled(first, second):
    scale, shift = second
    if first.activation:
        return None
    return Affine(first.kernel * scale, first.bias * scale + shift)


def _affine_affine(first, second):
    """Unless that is more work, as after a bottleneck."""
    size = len(first.kernel) * len(second.bias)
    if first.activation or size > first.kernel.size + second.kernel.size:
        return None
    bias = first.bias @ second.kernel + second.bias
    return Affine(first.kernel @ second.kernel, bias, second.activation)


def _affine_pointwise(first, second):
    return None if first.activation else first._replace(activation=second.function)


RULES = {
    (Scaled, Scaled): _scaled_scaled,
    (Scaled, Affine): _scaled_affine,
    (Affine, Scaled): _affine_scaled,
    (Affine, Affine): _affine_affine,
    (Affine, Pointwise): _affine_pointwise,
}


def of_dense(layer: keras.layers.Layer) -> list:
    """The steps of a layer with an affine map and an `activation`."""
    return [affine(layer, activation=None), *of_activation(layer.activation)]


def of_activation(activation: Any) -> list:
    """The steps of an activation: a function, a layer, or `None`."""
    if _facts.is_linear(activation):
        return []
    if export_steps := _facts.said_by(activation, "export_steps"):
        return export_steps()
    if isinstance(activation, keras.layers.Layer):
        return [Layers([activation])]
    return [Pointwise(activation)]


def of_shaped(function: Callable, epsilon: Any) -> list:
    """The steps of `x + epsilon f(x)`: for a leaky ReLU, one of another slope."""
    epsilon = rounded(epsilon)
    slope = LEAKY.get(function)
    if slope is None:
        return [Sum(([], [*of_activation(function), scaled(epsilon)]))]
    above, below = 1 + epsilon, 1 + slope * epsilon
    leaky = functools.partial(keras.layers.LeakyReLU, below / above, dtype=DTYPE)
    return [Kept(leaky, []), scaled(above)]


def scaled(scale: Any, shift: Any = 0.0) -> Scaled:
    """The step `scale * x + shift` with the numbers that a layer computes with."""
    return Scaled(rounded(scale), rounded(shift))


def rounded(constant: Any) -> np.ndarray:
    """A constant as layers compute with it, in float32.

    The same rounding in each of many layers adds up.
    """
    return np.asarray(constant, DTYPE).astype("float64")


def affine(layer: keras.layers.Layer, **config: Any) -> Affine:
    """The affine map that a built layer is, in float64.

    Its bias is what the layer makes of zero, and a row of its kernel what it adds for a
    unit vector.

    Args:
        layer: an affine layer.
        config: arguments of the layer that are to differ, such as `activation=None`.
    """
    features = layer.get_build_config()["input_shape"][-1]
    with _backend.float64():
        x = np.concatenate([np.zeros((1, features)), np.eye(features)])
        y = in_float64(layer, x.shape, **config)(x, training=False)
        bias, *rows = keras.ops.convert_to_numpy(y)
    return Affine(rows - bias, bias)


def in_float64(
    layer: keras.layers.Layer, input_shape: Shape, **changed: Any
) -> keras.layers.Layer:
    """The same layer, with the same weights, but for some arguments."""
    config = {**_config_in_float64(layer.get_config()), **changed}
    wide = type(layer).from_config(config)
    wide.build(input_shape)
    wide.set_weights(layer.get_weights())
    return wide


def _config_in_float64(config):
    if isinstance(config, dict):
        return {
            key: "float64" if key == "dtype" else _config_in_float64(value)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [*map(_config_in_float64, config)]
    return config
