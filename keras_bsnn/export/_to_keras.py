"""Models of this package as models of Keras alone."""

import warnings

import keras

from keras_bsnn._warnings import KerasBSNNWarning
from keras_bsnn.export._reading import needs_package, plain_config, steps_of
from keras_bsnn.export._writing import written
from keras_bsnn.stacking._stacked import StackedModel, unstack


def to_keras(model: keras.Model, largest_depth: int = 1000) -> keras.Model:
    """Returns an equal model of Keras' own layers, which loads without this package.

    It is equal in evaluation. Normalized activations and batch normalization are merged
    into the kernels and biases next to them; consecutive affine layers become one; a
    shaped activation becomes a sum, or for a ReLU, a leaky ReLU; an additive filter
    becomes two dense layers, or convolutions, and a sum. An orthogonal convolution
    becomes a plain one of its explicit kernel, and around it, where it is circular,
    layers that crop and concatenate; of a normalized activation, only the shift does
    not go through an edge of zeros, and stays in a `Rescaling`. Everything is computed
    in float64, and rounded once. Layers of Keras itself lose the constraints and
    initializers of this package.

    Args:
        model: A built `keras.Sequential`, or a functional model, in which each layer
            is replaced separately. A model with loops, of `stacking.stack_layers`, is
            first unstacked.
        largest_depth: Integer. A `DepthStack` of more layers stays as it is, with a
            warning: as single layers it would take long to load, and the model then
            needs this package. A stack of affine layers becomes one layer, whatever its
            depth. Defaults to 1000.

    Returns:
        A functional `keras.Model` in float32, built, not compiled, with weights of its
        own. Hundreds of layers are parts of it, models within the model.

    Raises:
        ValueError: If `model` is not as described, or has a layer without an equal in
            Keras, such as a convolution with `padding="bounce"`, or a circular one of
            images of unknown size.

    Warns:
        UserWarning: If a stack is deeper than `largest_depth`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(3, 8, "gp_tanh", input_shape=(4,))
    >>> plain = keras_bsnn.export.to_keras(model)
    >>> [type(layer).__name__ for layer in plain.layers[-4:]]
    ['Dense', 'Dense', 'Dense', 'Dense']
    """
    if isinstance(model, StackedModel):
        model = unstack(model)
        if not needs_package(model):
            return model
    is_sequential = isinstance(model, keras.Sequential)
    is_graph = is_sequential or getattr(model, "inputs", None)
    if not isinstance(model, keras.Model) or not model.built or not is_graph:
        raise ValueError(
            "`model` must be a built keras.Model, sequential or functional. "
            f"Received: {model!r}"
        )
    if is_sequential:
        plain = written(steps_of(model, largest_depth), model.input_shape[1:])
    else:
        plain = _replaced(model, largest_depth)
    if needs_package(plain):
        warnings.warn(
            f"The model has a stack of more than {largest_depth} layers, which stays: "
            "it needs keras_bsnn to be loaded.",
            KerasBSNNWarning,
            stacklevel=2,
        )
    return plain


def _replaced(model, largest_depth):
    """A functional model in which each layer is replaced separately."""
    copies = {}

    def replacement(layer):
        config = plain_config(layer)
        if config is None:
            shape = keras.tree.flatten(layer.input)[0].shape[1:]
            return written(steps_of(layer, largest_depth), shape, layer.name)
        copy = type(layer).from_config(config)
        copies[id(copy)] = copy, layer
        return copy

    def call(layer, inputs, *args, **kwargs):
        if id(layer) in copies:
            return layer(inputs, *args, **kwargs)
        _check_single(layer.name, args, kwargs)
        return layer(inputs)

    # A clone of the model itself would be compiled as it is.
    graph = keras.Model(model.input, model.output, name=model.name)
    found = keras.models.clone_model(
        graph, clone_function=replacement, call_function=call
    )
    for copy, layer in copies.values():
        copy.set_weights(layer.get_weights())
    return found


def _check_single(name, args, kwargs):
    if any(map(keras.backend.is_keras_tensor, keras.tree.flatten((args, kwargs)))):
        raise ValueError(
            f"`model` must call {name!r} with one tensor, as layers of Keras that are "
            f"equal to it take no other. Received: args={args}, kwargs={kwargs}"
        )
