"""Layers and models whose `call` is a loop over layers, as functional models."""

import collections

import keras

from keras_bsnn import _backend, _model
from keras_bsnn._graph import Graph
from keras_bsnn.depth import _equality


class NotOpened(Exception):
    """Says why a layer cannot be seen as a list of calls."""


def opened(layer, args, kwargs):
    """A call of a layer as a functional model, which is made of the layer's layers.

    Args:
        layer: a built layer, or a model.
        args: its arguments by position, with a `keras.KerasTensor` for each tensor.
        kwargs: those by name.

    Returns:
        A model that maps the structure of the first argument, if it is the only one,
        and else a list of the tensors, to what `call` returns.

    Raises:
        NotOpened: the call does more than to call layers and functions of Keras.
    """
    _check_layer(layer)
    model = _traced(layer, args, kwargs, None)
    graph = Graph(model)
    _check_weights(layer, graph)
    # A call that asks whether it trains is another one in training.
    for training in (True, False):
        if _described(model) != _described(_traced(layer, args, kwargs, training)):
            raise NotOpened("its `call` does something else in training")
    return model


def may_be_a_loop(layer, least):
    """Whether a layer has a list of layers, of which enough are alike."""
    if _model.is_functional(layer) or not isinstance(layer, keras.layers.Layer):
        return False
    lists = [x for x in vars(layer).values() if isinstance(x, list)]
    return any(
        count >= least
        for entries in lists
        for kind, count in collections.Counter(map(type, entries)).items()
        if issubclass(kind, keras.layers.Layer)
    )


def _check_layer(layer):
    if layer.activity_regularizer is not None:
        raise NotOpened("it has an activity regularizer")
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    if own or layer._seed_generators:
        raise NotOpened("it has weights, or random numbers, of its own")


def _traced(layer, args, kwargs, training):
    """The functional model of a call."""
    inputs = []

    def entering(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        if getattr(x, "_keras_mask", None) is not None:
            raise NotOpened("it is called with a tensor that has a mask")
        is_cast = layer.autocast and _backend.is_float(x)
        dtype = layer.compute_dtype if is_cast else x.dtype
        inputs.append(keras.Input(batch_shape=x.shape, dtype=dtype, name=x.name))
        return inputs[-1]

    args, kwargs = keras.tree.map_structure(entering, (args, kwargs))
    if layer._call_has_training_arg and kwargs.get("training") is None:
        kwargs = {**kwargs, "training": training}
    is_alone = len(args) == 1 and len(keras.tree.flatten(args)) == len(inputs)
    try:
        outputs = layer.call(*args, **kwargs)
        return keras.Model(
            args[0] if is_alone else inputs, _checked(outputs), name=layer.name
        )
    except NotOpened:
        raise
    except Exception as error:  # of code that is not ours
        reason = str(error).strip().split("\n")[0][:200]
        raise NotOpened(f"its `call` takes no symbolic tensors ({reason})") from error


def _checked(outputs):
    found = keras.tree.flatten(outputs)
    if any(not isinstance(x, keras.KerasTensor) for x in found):
        raise NotOpened("its `call` returns what is no tensor")
    return outputs


def _check_weights(layer, graph):
    seen = {id(v) for call in graph.calls for v in call.variables()}
    used = {id(v) for call in graph.calls for v in call.uses()}
    if used != seen or any(id(v) not in seen for v in layer.variables):
        raise NotOpened("its `call` uses weights that are not of a layer it calls")


def _described(model):
    """The graph of a model, without whether its layers are told that they train."""

    def described(call):
        kwargs = {k: v for k, v in call.kwargs.items() if k != "training"}
        is_layer = isinstance(call.operation, keras.layers.Layer)
        what = id(call.operation) if is_layer else call.operation
        return _equality.fingerprint((what, call.args, kwargs))

    graph = Graph(model)
    return [*map(described, graph.calls)], graph.outputs
