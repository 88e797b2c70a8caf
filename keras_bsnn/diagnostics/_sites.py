"""The calls of the layers of a model, each with its outputs and a probe at them.

A probe is a tensor of zeros that is added to an output: the gradient with respect to it
is that of the output.
"""

import contextvars
import functools
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_bsnn import _backend, _model
from keras_bsnn._types import Tensor
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

    @property
    def kind(self) -> str:
        """The name of the class of the layer, or of each layer of the stack."""
        layer = self.layer.block if is_stack(self.layer) else self.layer
        return type(layer).__name__

    def names(self) -> list[str]:
        """Returns the name of the layer, or that of each layer of the stack."""
        name = self.layer.name
        if is_stack(self.layer):
            return [f"{name}/{i}" for i in range(self.shape[0])]
        return [name]


class Observed:
    """A copy of a model on the same variables, whose layers are observed.

    Args:
        model: a built model. Neither it nor its layers are changed.
    """

    def __init__(self, model: keras.Model):
        self._copy = instrumented(model, set(_model.leaves(model)), _observed)

    def sites(self, x: Tensor, training: bool) -> list[Site]:
        """Returns the sites, in the order in which the model calls its layers."""
        record = _Record()
        self._called(record, x, training)
        return record.sites

    def outputs(
        self, x: Tensor, training: bool, probes: list[Tensor]
    ) -> tuple[Any, list[tuple[Tensor, Tensor]]]:
        """Calls the model with a probe at each of its sites.

        Returns:
            The outputs of the model, and for each site the pair of its outputs,
            `(depth, batch, ...)`, and its shares of saturated units, `(depth,)`.
        """
        record = _Record(iter(probes))
        return self._called(record, x, training), record.outputs

    def _called(self, record, x, training):
        token = _observing.set(record)
        try:
            return self._copy(x, training=training)
        finally:
            _observing.reset(token)


class _Record:
    """What is observed in one call of a model: without probes, only the sites."""

    def __init__(self, probes=None):
        self.probes = probes
        self.sites, self.outputs = [], []


def _observed(layer, copy):
    """Returns what to call in place of `copy.call`, for `instrumented`."""
    plain = copy.call
    observe = (_observed_stack if is_stack(layer) else _observed_layer)(layer, copy)

    def call(*args, **kwargs):
        record = _observing.get()
        function = plain if record is None else functools.partial(observe, record)
        return function(*args, **kwargs)

    return call


def is_stack(layer: keras.layers.Layer) -> bool:
    """Whether a layer can observe the outputs of the layers that it stands for."""
    return hasattr(layer, "observe")


def _observed_layer(layer, copy):
    plain, saturation = copy.call, Saturation()
    watched = saturation.from_here(saturation.watch(layer, copy))

    def observe(record, *args, **kwargs):
        y = (watched if record.probes else plain)(*args, **kwargs)
        if not _is_measurable(y):
            return y
        if not record.probes:
            record.sites.append(Site(layer, (1, *y.shape), _dtype(y)))
            return y
        y = y + next(record.probes)[0]
        record.outputs.append((y[None], saturation.take()[None]))
        return y

    return observe


def _observed_stack(stack, copy):
    """The stack reports what each of its layers returns, in the loop that trains."""
    plain, saturation = copy.call, Saturation()
    leaves = set(_model.leaves(stack.block))
    block = instrumented(stack.block, leaves, saturation.watch)
    vars(block)["call"] = saturation.from_here(block.call)
    settings = {"block": block, "tap": saturation.take, "traced": {}}

    def observe(record, inputs, *context, **kwargs):
        if not _is_measurable(inputs):
            return plain(inputs, *context, **kwargs)
        if not record.probes:
            shape = (stack.depth, *inputs.shape)
            record.sites.append(Site(stack, shape, stack.compute_dtype))
            specs = stack.compute_output_spec(inputs, *context)  # sooner than a trace
            return _backend.map_tensors(lambda x: ops.zeros(x.shape, x.dtype), specs)
        probes = next(record.probes)
        result, *observed = copy.observe(
            inputs, *context, probes=probes, **settings, **kwargs
        )
        record.outputs.append(tuple(observed))
        return result

    return observe


def _dtype(x):
    return keras.backend.standardize_dtype(x.dtype)


def _is_measurable(y):
    """Whether it is one tensor of floating point, with samples."""
    return (
        ops.is_tensor(y)
        and len(y.shape) > 1
        and keras.backend.is_float_dtype(_dtype(y))
    )
