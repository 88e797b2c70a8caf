"""Models of this package as models of Keras alone."""

import warnings

import keras

from keras_bsnn._public import public
from keras_bsnn.export.reading import needs_package, steps_of
from keras_bsnn.export.steps import (
    DTYPE,
    Affine,
    Kept,
    Pointwise,
    Scaled,
    Sum,
    simplified,
)


@public
def to_keras(model, largest_depth=1000):
    """An equal model of Keras' own layers, which loads without this package.

    In evaluation. Normalized activations go into the kernels and biases next to them,
    and so does batch normalization; consecutive affine layers become one; a shaped
    activation is a sum, or of a ReLU, a leaky one; an additive filter is two dense
    layers and a sum. All is computed in float64, and rounded once.

    Args:
        model: a built `keras.Sequential`, or a functional model, in which each layer
            is replaced for itself.
        largest_depth: a `DepthStack` of more layers stays as it is, with a warning:
            as single layers it would take long to load, and the model needs this
            package. A stack of affine layers becomes one layer, whatever its depth.

    Returns:
        A functional `keras.Model` in float32, built, not compiled, with weights of its
        own.

    Raises:
        ValueError: `model` is not as above, or has a layer that has no equal in Keras.

    Warns:
        UserWarning: a stack is deeper than `largest_depth`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(3, 8, "gp_tanh", input_shape=(4,))
    >>> plain = keras_bsnn.export.to_keras(model)
    >>> [type(layer).__name__ for layer in plain.layers[-4:]]
    ['Dense', 'Dense', 'Dense', 'Dense']
    """
    is_sequential = isinstance(model, keras.Sequential)
    is_graph = is_sequential or getattr(model, "inputs", None)
    if not isinstance(model, keras.Model) or not model.built or not is_graph:
        raise ValueError(
            "`model` must be a built keras.Model, sequential or functional. "
            f"Received: {model!r}"
        )
    if is_sequential:
        plain = _written(steps_of(model, largest_depth), model.input_shape[1:])
    else:
        plain = _replaced(model, largest_depth)
    if needs_package(plain):
        warnings.warn(
            f"The model has a stack of more than {largest_depth} layers, which stays: "
            "it needs keras_bsnn to be loaded.",
            stacklevel=2,
        )
    return plain


def _replaced(model, largest_depth):
    """A functional model with each layer replaced for itself."""

    def plain(layer):
        if isinstance(layer, keras.layers.InputLayer) or not needs_package(layer):
            return layer.from_config(layer.get_config())
        return _written(steps_of(layer, largest_depth), layer.input.shape[1:])

    found = keras.models.clone_model(model, clone_function=plain)
    for layer, old in zip(found.layers, model.layers, strict=True):
        if not needs_package(old):
            layer.set_weights(old.get_weights())
    return found


def _written(steps, shape):
    inputs = keras.Input(shape)
    outputs = _applied(simplified(steps), inputs)
    return keras.Model(inputs, outputs)


def _applied(steps, x):
    for step in steps:
        x = WRITERS[type(step)](step, x)
    return x


def _dense(step, x):
    layer = keras.layers.Dense(len(step.bias), step.activation, dtype=DTYPE)
    y = layer(x)
    layer.set_weights([step.kernel, step.bias])
    return y


def _rescaling(step, x):
    scale, shift = (z.tolist() for z in step)
    return keras.layers.Rescaling(scale, shift, dtype=DTYPE)(x)


def _activation(step, x):
    if not step.is_activation:
        return step.function(x)
    return keras.layers.Activation(step.function, dtype=DTYPE)(x)


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
