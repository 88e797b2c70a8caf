"""Writes steps as layers of Keras."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_bsnn import activations
from keras_bsnn._steps import DTYPE, Affine, Kept, Pointwise, Scaled, Sum, simplified
from keras_bsnn._types import Shape

OPERATIONS = {activations.sin: keras.ops.sin}  # Keras has no such activation


def written(steps: Iterable[Any], shape: Shape, name: str | None = None) -> keras.Model:
    """A functional model of as few layers as possible that computes `steps`.

    Args:
        steps: Iterable of steps.
        shape: Tuple of integers, the shape of a sample of the inputs.
        name: String, the name of the model. Defaults to `None`: any name.
    """
    inputs = keras.Input(shape)
    return keras.Model(inputs, _applied(simplified(steps), inputs), name=name)


def _applied(steps, x):
    for step in steps:
        x = WRITERS[type(step)](step, x)
    return x


def _dense(step, x):
    operation = OPERATIONS.get(step.activation)
    activation = None if operation else step.activation
    layer = keras.layers.Dense(len(step.bias), activation, dtype=DTYPE)
    y = layer(x)
    layer.set_weights([step.kernel, step.bias])
    return operation(y) if operation else y


def _rescaling(step, x):
    scale, shift = (z.tolist() for z in step)
    return keras.layers.Rescaling(scale, shift, dtype=DTYPE)(x)


def _activation(step, x):
    operation = OPERATIONS.get(step.function)
    return (operation or keras.layers.Activation(step.function, dtype=DTYPE))(x)


def _sum(step, x):
    branches = [_applied(branch, x) for branch in step.branches]
    return keras.layers.add(branches, dtype=DTYPE)


def _layer(step, x):
    layer = step.make()
    y = layer(x)
    layer.set_weights(step.weights)
    return y


WRITERS = {
    Affine: _dense,
    Scaled: _rescaling,
    Pointwise: _activation,
    Sum: _sum,
    Kept: _layer,
}
