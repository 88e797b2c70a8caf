"""Writes steps as layers of Keras."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import keras

from keras_bsnn import activations
from keras_bsnn._convolved import Convolved, Permuted
from keras_bsnn._steps import DTYPE, Affine, Kept, Pointwise, Scaled, Sum, simplified
from keras_bsnn._types import Shape
from keras_bsnn.export import _writing_images

LONGEST = 100  # steps in one model: Keras goes through its layers by recursion
OPERATIONS = {activations.sin: keras.ops.sin}  # Keras has no such activation


def written(steps: Iterable[Any], shape: Shape, name: str | None = None) -> keras.Model:
    """A functional model of as few layers as possible that computes `steps`.

    Many steps are parts of it, models of `LONGEST` steps.

    Args:
        steps: Iterable of steps.
        shape: Tuple of integers, the shape of a sample of the inputs.
        name: String, the name of the model. Defaults to `None`: any name.
    """
    inputs = keras.Input(shape)
    return keras.Model(inputs, _applied(simplified(steps), inputs), name=name)


class Part(NamedTuple):
    """Steps that become a model of their own within the model."""

    steps: list


def _applied(steps, x):
    while len(steps) > LONGEST:
        starts = range(0, len(steps), LONGEST)
        steps = [Part(steps[start : start + LONGEST]) for start in starts]
    for step in steps:
        x = WRITERS[type(step)](step, x)
    return x


def _part(part, x):
    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, _applied(part.steps, inputs))(x)


def _activated(write):
    """Decorates a writer of layers that take an activation, where Keras has it."""

    def write_all(step, x):
        operation = OPERATIONS.get(step.activation)
        if operation is None:
            return write(step, x)
        return operation(write(step._replace(activation=None), x))

    return write_all


@_activated
def _dense(step, x):
    layer = keras.layers.Dense(len(step.bias), step.activation, dtype=DTYPE)
    y = layer(x)
    layer.set_weights([step.kernel, step.bias])
    return y


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
    Part: _part,
    Convolved: _activated(_writing_images.convolved),
    Permuted: _writing_images.permuted,
}
