"""The kernel of a dense layer that starts from the Haar distribution."""

from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_bsnn import manifolds
from keras_bsnn._types import Identifier, Shape
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import _identifiers


def initializer(identifier: Identifier) -> Callable[..., Any] | None:
    """The initializer of a kernel; `None` stands for the Haar distribution."""
    if identifier is None:
        return HaarOrthogonal()
    return _identifiers.get("kernel_initializer", identifier)


def regularizer(identifier: Identifier) -> Callable[..., Any] | None:
    """The regularizer of a kernel."""
    return _identifiers.get("kernel_regularizer", identifier)


def constraint(identifier: Identifier) -> Callable[..., Any] | None:
    """The constraint of a kernel; `"orthogonal"` stands for `Orthogonal()`."""
    if identifier == "orthogonal":
        return Orthogonal()
    return _identifiers.get("kernel_constraint", identifier)


def add_to(layer: keras.layers.Layer, input_shape: Shape) -> keras.Variable:
    """Adds a kernel `(inputs, units)` to a layer, which then expects such inputs."""
    inputs = input_shape[-1]
    if inputs is None:
        raise ValueError(
            "The last axis of the inputs must have a known size. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    layer.input_spec = keras.InputSpec(min_ndim=2, axes={-1: inputs})
    return layer.add_weight(
        name="kernel",
        shape=(inputs, layer.units),
        initializer=layer.kernel_initializer,
        regularizer=layer.kernel_regularizer,
        constraint=layer.kernel_constraint,
    )


def assert_orthogonal(
    layer: keras.layers.Layer, kernels: Iterable[keras.Variable], eps: float
) -> None:
    """Raises `AssertionError` for a kernel of a layer with an error above `eps`."""
    for kernel in kernels:
        manifold = manifolds.of(kernel) or manifolds.Stiefel()
        error = keras.ops.max(manifold.error(kernel))
        error = float(keras.ops.convert_to_numpy(error))
        if not error <= eps:
            raise AssertionError(
                f"The weight {kernel.name!r} of layer {layer.name!r} is not "
                f"orthogonal: its error is {error:.3g}, more than eps={eps:g}."
            )
