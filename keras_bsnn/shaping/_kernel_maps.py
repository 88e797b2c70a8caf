"""The law of every signal of a model, from its graph alone."""

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bsnn import _model
from keras_bsnn._graph import Graph, Source, map_sources
from keras_bsnn._types import Tensor
from keras_bsnn.ops import _check
from keras_bsnn.shaping import _registry
from keras_bsnn.shaping._measured import measured
from keras_bsnn.shaping._signal import Signal


class KernelMap(NamedTuple):
    """What is known of the outputs of an operation, in a wide network.

    All are means over channels and places.

    Attributes:
        layer: the name of the layer, with those of the models that it is in.
        kind: the name of its class.
        mean: of the outputs.
        second_moment: of the outputs: their mean square.
        inputs: the correlation, without centering, of two inputs at one place.
        places: that of two places of one input; NaN if there is one place.
        both: that of two places of two inputs; NaN if there is one place.

    Example:

    >>> import keras
    >>> from keras_bsnn import shaping
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU(name="half")])
    >>> (found,) = shaping.kernel_maps(model)
    >>> found.layer, found.kind, round(found.second_moment, 3)
    ('half', 'ReLU', 0.5)
    """

    layer: str
    kind: str
    mean: float
    second_moment: float
    inputs: float
    places: float
    both: float


def kernel_maps(
    model: keras.Model, x: Tensor | None = None, training: bool = False
) -> list[KernelMap]:
    """Predicts second moments and correlations of all signals, without a pass of data.

    In a wide network with random weights the channels of a layer are independent
    numbers of one law, which each operation maps to the next: kernels by the mean
    square of their weights, activations by Gaussian integrals.

    Args:
        model: functional or sequential model, which may hold others.
        x: batch of inputs, whose own moments are the start, or a list of such. Defaults
            to `None`, for independent standard normal numbers.
        training: boolean, whether normalizations use statistics of batches, and dropout
            drops. Defaults to `False`.

    Returns:
        A list of `KernelMap`, one for each operation, in the order in which they run.

    Raises:
        ValueError: `model` has a `call` of its own, is not built, or has an operation
            without a map: see `register_map`.

    Source: Martens et al., arXiv 2110.01765, for dense layers and convolutions; Poole
    et al., arXiv 1606.05340. What is between places, and for other operations: this
    package.

    Example:

    >>> import keras
    >>> from keras_bsnn import shaping
    >>> layers = [keras.layers.Dense(512, "relu") for _ in range(20)]
    >>> model = keras.Sequential([keras.Input((512,)), *layers])
    >>> last = shaping.kernel_maps(model)[-1]
    >>> last.second_moment < 1e-5, last.inputs > 0.9
    (True, True)
    """
    training = _check.boolean("training", training)
    model = checked(model)
    given = [None] * len(model.inputs) if x is None else keras.tree.flatten(x)
    if len(given) != len(model.inputs):
        raise _check.refusal("x", f"a batch for each of {len(model.inputs)} inputs", x)
    signals = [start(i, a) for i, a in zip(model.inputs, given, strict=True)]
    found: list[KernelMap] = []
    trace(model, signals, training, lambda *call: found.append(_summary(*call)))
    return found


def checked(model: Any) -> keras.Model:
    """A functional model; `ValueError` for another."""
    if isinstance(model, keras.Sequential) and not model.built:
        raise _check.refusal("model", "built: give it a `keras.Input`", model)
    if not _model.is_functional(model):
        kind = (
            "a functional or sequential model, whose graph is known. What works for a "
            "subclass: keras.Model(inputs, outputs) of what its `call` computes"
        )
        raise _check.refusal("model", kind, model)
    return model


def start(tensor, x=None):
    """The signal that enters: of data, or of standard normal numbers."""
    if x is not None:
        return measured(x)
    *places, channels = tensor.shape[1:]
    if None in places:
        kind = "given, of a batch: the model does not know how many places there are"
        raise _check.refusal("x", kind, x)
    return Signal.white(tuple(places), channels)


def through(
    operation: Any, args: tuple, kwargs: dict, training: bool, record: Any = None
) -> list[Signal]:
    """What a layer, a function or a model makes of signals.

    Args:
        operation: what is called.
        args: its arguments, with a `Signal` in the place of each tensor.
        kwargs: those by name.
        training: as of `kernel_maps`.
        record: function of the name, the operation and the signal of each call, with
            the names of models before it. Defaults to `None`.
    """
    if not _model.is_functional(operation):
        signal = _registry.apply(operation, args, kwargs, training)
        if record:
            record(operation.name, operation, signal)
        return [signal]

    def inside(name, *rest):
        if record:
            record(f"{operation.name}/{name}", *rest)

    return trace(operation, keras.tree.flatten(args), training, inside)


def trace(
    model: keras.Model, signals: list[Signal], training: bool, record: Any
) -> list[Signal]:
    """What a functional model makes of signals."""
    graph = Graph(_model.graph(model))
    found = {Source(-1, i): signal for i, signal in enumerate(signals)}
    for place, call in enumerate(graph.calls):
        args, kwargs = map_sources(found.__getitem__, (call.args, call.kwargs))
        returned = through(call.operation, args, kwargs, training, record)
        found |= {Source(place, i): signal for i, signal in enumerate(returned)}
    return [found[source] for source in graph.outputs]


def _summary(name, operation, signal):
    part = signal.total
    second = part.same.mean
    pairs = [_apart(field) for field in (part.same, part.other)]
    scale = second or 1.0
    return KernelMap(
        name,
        type(operation).__name__,
        float(part.mean.mean()),
        second,
        *(float(x / scale) for x in (part.other.mean, *pairs)),
    )


def _apart(field):
    """The mean product of two places that are not the same."""
    count = np.prod(field.places)
    if count == 1:
        return np.nan
    return (count * field.over_all_pairs() - field.mean) / (count - 1)
