"""The calls of the layers of a model, each with its outputs and a probe at them.

A probe is a tensor of zeros that is added to an output: the gradient with respect to it
is that of the output.
"""

import contextvars
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from keras_bsnn import _model
from keras_bsnn.diagnostics._instrument import instrumented
from keras_bsnn.diagnostics._saturation import Saturation

_observing = contextvars.ContextVar("observing", default=None)


class Site(NamedTuple):
    """A call of a layer whose output is measured.

    Attributes:
        layer: the layer.
        shape: shape of its probe, `(depth, batch, ...)`, where `depth` is 1 unless the
            layer is a stack.
        dtype: dtype of its probe.
    """

    layer: keras.layers.Layer
    shape: tuple
    dtype: str


class Observed:
    """A model on the variables of another, whose layers are observed.

    Args:
        model: a built model. Neither it nor its layers are changed.
    """

    def __init__(self, model: keras.Model):
        self._twin = instrumented(model, set(_model.leaves(model)), _observed)

    def __call__(self, x, training, probes=None):
        """Calls the model.

        Args:
            x: inputs of the model.
            training: as in the call of a model.
            probes: list of a tensor for each site; `None` for zeros.

        Returns:
            The outputs of the model, the list of `Site`s, and for each the pair of its
            outputs, `(depth, batch, ...)`, and its shares of saturated units,
            `(depth,)`.
        """
        record = _Record(probes)
        token = _observing.set(record)
        try:
            y = self._twin(x, training=training)
        finally:
            _observing.reset(token)
        return y, record.sites, record.outputs


class _Record:
    """What is observed in one call of a model."""

    def __init__(self, probes):
        self.probes = None if probes is None else iter(probes)
        self.sites, self.outputs = [], []

    def probe(self, layer, shape, dtype):
        self.sites.append(
            Site(layer, tuple(shape), keras.backend.standardize_dtype(dtype))
        )
        return ops.zeros(shape, dtype) if self.probes is None else next(self.probes)


def _observed(layer, copy):
    """Returns the call of a copy: for `instrumented`, whose arguments these are."""
    plain = copy.call
    make = _stack_observer if is_stack(layer) else _layer_observer
    observe = make(layer, copy)

    def call(*args, **kwargs):
        record = _observing.get()
        if record is None:
            return plain(*args, **kwargs)
        return observe(record, *args, **kwargs)

    return call


def is_stack(layer: keras.layers.Layer) -> bool:
    """Whether a layer can observe the outputs of the layers that it stands for."""
    return hasattr(layer, "observe")


def _layer_observer(layer, copy) -> Callable:
    saturation = Saturation()
    call = saturation.from_here(saturation.watch(layer, copy))

    def observe(record, *args, **kwargs):
        y = call(*args, **kwargs)
        if not _is_measurable(y):
            return y
        y = y + record.probe(layer, (1, *y.shape), y.dtype)[0]
        record.outputs.append((y[None], saturation.share()[None]))
        return y

    return observe


def _stack_observer(stack, copy) -> Callable:
    """A stack says what each of its layers gives, from the loop that trains."""
    saturation = Saturation()
    leaves = set(_model.leaves(stack.block))
    block = instrumented(stack.block, leaves, saturation.watch)
    vars(block)["call"] = saturation.from_here(block.call)
    plain = copy.call

    def observe(record, inputs, *context, **kwargs):
        if not _is_measurable(inputs):
            return plain(inputs, *context, **kwargs)
        shape = (stack.depth, *inputs.shape)
        probes = record.probe(stack, shape, stack.compute_dtype)
        result, outputs, shares = copy.observe(
            inputs, *context, probes=probes, block=block, tap=saturation.share, **kwargs
        )
        record.outputs.append((outputs, shares))
        return result

    return observe


def _is_measurable(y):
    """Whether it is one tensor of floating point, with samples."""
    return (
        ops.is_tensor(y)
        and len(y.shape) > 1
        and keras.backend.is_float_dtype(keras.backend.standardize_dtype(y.dtype))
    )
