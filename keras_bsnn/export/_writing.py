"""Writes steps as layers of Keras."""

import keras

from keras_bsnn import activations
from keras_bsnn._steps import DTYPE, Affine, Kept, Pointwise, Scaled, Sum, simplified

OPERATIONS = {activations.sin: keras.ops.sin}  # which Keras has no activation of


def written(steps, shape, name=None):
    """A functional model of as few layers as possible that computes `steps`.

    Args:
        steps: iterable of them.
        shape: shape of a sample of the inputs.
        name: name of the model, or `None` for any.
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
