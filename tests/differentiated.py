"""Gradients of layers, compiled, as arrays."""

import keras
from arrays import array
from keras import ops

from keras_bsnn import _backend

IS_JAX = keras.backend.backend() == "jax"


def gradients(layer, x, training=None):
    """Of a loss of the output: those of the input and of the weights."""
    variables = layer.trainable_variables

    def loss(tensors):
        x, *values = tensors
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return ops.sum(ops.sin(layer(x, training=training)))

    values = [ops.convert_to_tensor(x), *map(_backend.read, variables)]
    return [array(g) for g in compiled_gradients(loss, values)]


def compiled_gradients(loss, values):
    found = _backend.compiled(lambda *x: _backend.gradients(loss, [*x]), IS_JAX)
    return found(*values)
