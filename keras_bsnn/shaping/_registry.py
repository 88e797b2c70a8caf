"""Which map each layer and each function of Keras has; yours are added here."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_bsnn import _facts
from keras_bsnn.ops import _check

LAYERS: dict[type, Callable] = {}
FUNCTIONS: dict[str, Callable] = {}


def register_map(*kinds: Any) -> Callable:
    """Decorates a function that says what operations make of a signal.

    Args:
        *kinds: classes of layers, and functions of `keras.ops`.

    Returns:
        A decorator of a function of the layer, or of the operation, and of the
        arguments of its call, with a `Signal` in the place of each tensor. It returns a
        `Signal`. If it has an argument `training`, it is told whether batches are.

    Raises:
        ValueError: a kind is not of these.

    Source: this package.

    Example: a layer that multiplies by 3.

    >>> import keras
    >>> from keras_bsnn import shaping
    >>> class Triple(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return 3 * inputs
    >>> @shaping.register_map(Triple)
    ... def triple(layer, signal):
    ...     return signal.pointwise(lambda x: 3 * x)
    >>> model = keras.Sequential([keras.Input((8,)), Triple()])
    >>> shaping.kernel_maps(model)[-1].second_moment
    9.0
    """
    for kind in kinds:
        if not (_is_class(kind) if isinstance(kind, type) else callable(kind)):
            expected = "classes of layers, or functions of keras.ops"
            raise _check.refusal("kinds", expected, kind)

    def decorate(function):
        LAYERS.update({kind: function for kind in kinds if _is_class(kind)})
        functions = [kind for kind in kinds if not _is_class(kind)]
        FUNCTIONS.update({_key(kind.__name__): function for kind in functions})
        return function

    return decorate


def map_of(operation: Any) -> Callable | None:
    """The map of a layer or an operation, or `None`.

    A subclass has that of its base, unless it has a `call` of its own.
    """
    if not isinstance(operation, keras.layers.Layer):
        return FUNCTIONS.get(_key(type(operation).__name__))
    for kind in type(operation).__mro__:
        if kind in LAYERS:
            return LAYERS[kind]
        if "call" in vars(kind):
            break
    return _pointwise if _facts.is_pointwise(operation) else None


def apply(operation: Any, args: tuple, kwargs: dict, training: bool) -> Any:
    """What an operation makes of signals.

    Raises:
        ValueError: it has no map.
    """
    function = map_of(operation)
    if function is None:
        kind = type(operation).__name__
        raise ValueError(
            f"{operation.name!r}, of {kind}, has no map: nothing is known of what it "
            "makes of second moments. Give it one by a function of the layer and its "
            f"inputs, decorated with keras_bsnn.shaping.register_map({kind})."
        )
    kwargs = {k: v for k, v in kwargs.items() if k != "training"}
    if "training" in inspect.signature(function).parameters:
        kwargs["training"] = training  # of the model, as Keras runs a graph
    return function(operation, *args, **kwargs)


def _is_class(kind):
    return isinstance(kind, type) and issubclass(kind, keras.layers.Layer)


def _pointwise(layer, signal):
    return signal.pointwise(layer)


def _key(name):
    """`keras.ops.leaky_relu` is an operation of class `LeakyRelu`."""
    return name.replace("_", "").lower()
