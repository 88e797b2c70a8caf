"""Whether layers compute the same function of their inputs and variables."""

import functools
import types

import keras
import numpy as np

from keras_bsnn import _model

# What Keras keeps of every layer, besides what `FLAGS` names, and what may differ.
BOOKKEEPING = {*vars(keras.layers.Layer()), "seed"}
FLAGS = ("_trainable", "_dtype_policy", "supports_masking", "autocast")
PLAIN = (str, bytes, bool, int, float, complex, type(None), type)


def fingerprint(layer):
    """What is equal for layers that are equal but for names, seeds and values.

    It is made of all that a layer holds, through its layers and containers: classes,
    settings, functions, and the shapes, dtypes, flags, constraints and regularizers of
    variables. Layers whose fingerprints differ may still compute the same.

    Args:
        layer: a built layer.
    """
    return _of(layer, {})


def difference(first, other, path=""):
    """Where two fingerprints differ first, in words."""
    if isinstance(first, tuple) and isinstance(other, tuple):
        for a, b in zip(first, other, strict=False):
            if a != b:
                is_named = isinstance(a, tuple) and len(a) == 2 and _is_name(a[0])
                return difference(a, b, f"{path}.{a[0]}" if is_named else path)
    first, other = (getattr(x, "co_name", x) for x in (first, other))
    return f"`{path.lstrip('.') or 'class'}`: {first} and {other}"


def _is_name(x):
    return isinstance(x, str) and x.isidentifier() and x != "seen"


def _of(x, seen):
    if isinstance(x, PLAIN):
        return x
    if id(x) in seen:
        return "seen", seen[id(x)][0]
    seen[id(x)] = len(seen), x  # which keeps its id
    return _of_object(x, functools.partial(_of, seen=seen))


@functools.singledispatch
def _of_object(x, of):
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        array = np.asarray(keras.ops.convert_to_numpy(x))
        return str(array.dtype), array.shape, array.tobytes()
    names = sorted(vars(x)) if hasattr(x, "__dict__") else ()
    return type(x), tuple((name, of(vars(x)[name])) for name in names)


@_of_object.register(keras.layers.Layer)
def _(x, of):
    names = sorted(vars(x).keys() - BOOKKEEPING)
    own = [name for name in names if not name.startswith("_self_")]  # TensorFlow's
    return (
        type(x),
        tuple(of(getattr(x, flag, None)) for flag in FLAGS),
        _graph(x, of)
        if _model.is_functional(x)
        else tuple((name, of(vars(x)[name])) for name in own),
        tuple(map(of, x._layers)),
        tuple(map(of, (*x._trainable_variables, *x._non_trainable_variables))),
    )


def _graph(model, of):
    """What is called in a functional model, in turn, and with what."""
    nodes = _model.nodes(model)
    made = [t for node in nodes for t in node.output_tensors]
    places = {id(tensor): i for i, tensor in enumerate(made)}

    def call(node):
        given = node.arguments.args, node.arguments.kwargs
        return of(node.operation), keras.tree.map_structure(entry, given)

    def entry(x):
        return places[id(x)] if isinstance(x, keras.KerasTensor) else of(x)

    return tuple(map(call, nodes)), tuple(places[id(x)] for x in model.outputs)


@_of_object.register(keras.Operation)
def _(x, of):
    own = sorted(vars(x).keys() - BOOKKEEPING)
    return type(x), tuple((name, of(vars(x)[name])) for name in own)


@_of_object.register(keras.Variable)
def _(x, of):
    kinds = of(x.constraint), of(x.regularizer)
    return tuple(x.shape), str(x.dtype), x.trainable, x._autocast, *kinds


@_of_object.register(keras.KerasTensor)
def _(x, of):
    return tuple(x.shape), str(x.dtype)


@_of_object.register(keras.random.SeedGenerator)
def _(x, of):
    return type(x)


@_of_object.register(keras.initializers.Initializer)
def _(x, of):
    return "initializer"  # which computes nothing any more


@_of_object.register(dict)
def _(x, of):
    return tuple((of(key), of(value)) for key, value in x.items())


@_of_object.register(list)
@_of_object.register(tuple)
def _(x, of):
    return tuple(map(of, x))


@_of_object.register(set)
@_of_object.register(frozenset)
def _(x, of):
    return tuple(sorted(str(of(entry)) for entry in x))


@_of_object.register(types.FunctionType)
def _(x, of):
    cells = tuple(of(cell.cell_contents) for cell in x.__closure__ or ())
    return x.__code__, cells, of(x.__defaults__)


@_of_object.register(types.MethodType)
def _(x, of):
    return x.__func__.__code__, of(x.__self__)
