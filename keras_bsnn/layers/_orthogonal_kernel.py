"""The kernel of a dense layer that starts from the Haar law."""

import keras

from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import _identifiers


def initializer(identifier):
    """`None` stands for the Haar law."""
    if identifier is None:
        return HaarOrthogonal()
    return _identifiers.get("kernel_initializer", identifier)


def constraint(identifier):
    """`"orthogonal"` stands for a retraction after each step."""
    if identifier == "orthogonal":
        return Orthogonal()
    return _identifiers.get("kernel_constraint", identifier)


def add_to(layer, input_shape):
    """The kernel of a layer, `(inputs, units)`; the layer then expects such inputs."""
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
        constraint=layer.kernel_constraint,
    )
