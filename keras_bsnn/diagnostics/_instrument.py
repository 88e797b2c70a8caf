"""Copies of models on the same variables, in which the calls of layers are observed.

A copy is private to whoever made it: nothing is set on the layers of the user, so other
threads can call, train and save the model at the same time.
"""

import functools
from collections.abc import Callable, Iterable

import keras

NODE = keras.Operation(name="node")  # with the attributes of any, but no graph


def instrumented(
    model: keras.layers.Layer,
    layers: Iterable[keras.layers.Layer],
    wrap: Callable,
) -> keras.layers.Layer:
    """Returns a copy of a model, on the same variables, that observes some layers.

    Args:
        model: a built layer or model: Sequential, functional, subclassed or nested.
        layers: the layers to observe, among those that `nested(model)` yields.
        wrap: callable `(layer, copy)` of such a layer and its copy, which it is free to
            change. It returns the function to be called in place of `copy.call`.
    """
    copies = _Copies()
    twin = copies.of(model)
    # Only now, because copying a functional model calls its layers symbolically.
    for layer in layers:
        copy = copies.of(layer)
        vars(copy)["call"] = _disguised(wrap(layer, copy), copy.call)
    return twin


def _disguised(function, call):
    """Returns a function with the signature of `call`, which Keras may look at."""

    @functools.wraps(call)
    def disguised(*args, **kwargs):
        return function(*args, **kwargs)

    return disguised


class _Copies:
    """Shallow copies of layers and operations, one of each.

    The layers among their attributes are replaced by copies; variables are shared.
    """

    def __init__(self):
        self.copies = {}

    def of(self, operation):
        """Returns the copy of a layer, or of another node of a functional model."""
        if id(operation) not in self.copies:
            copy = object.__new__(type(operation))
            self.copies[id(operation)] = copy  # before its attributes refer to it
            vars(copy).update(self._replaced(vars(operation)))
            if isinstance(operation, keras.Function):
                vars(copy).update(self._graph(operation))
        return self.copies[id(operation)]

    def _replaced(self, value):
        """Containers are new in any case: what a copy appends stays in the copy."""
        if isinstance(value, keras.Operation):
            return self.of(value)
        if isinstance(value, dict):
            return {key: self._replaced(item) for key, item in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self._replaced, value))
        for kind in (list, tuple, set):
            if isinstance(value, kind):
                return kind(map(self._replaced, value))
        return value

    def _graph(self, model):
        """Returns the attributes that make up the graph of a functional model."""
        # An uncompiled model: the clone of a compiled one would make an optimizer.
        plain = keras.Model(model.input, model.output, name=model.name)
        clone = keras.models.clone_model(plain, clone_function=self.of)
        function = vars(keras.Function(clone.input, clone.output, model.name))
        return {name: function[name] for name in function.keys() - vars(NODE).keys()}
