"""Reads layers as steps: our layers report theirs, those of Keras are in a table."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_bsnn import _facts, _steps
from keras_bsnn._steps import Kept, Layers, Scaled, Sum
from keras_bsnn._types import Config

PACKAGE = __name__.partition(".")[0]
IDLE = ("compile_config", "constraint", "initializer")  # unused in evaluation
NUMBERS = itertools.count(1)
READERS: dict[
    type, Callable
] = {}  # from a class of Keras to a function from a layer to its steps


def steps_of(layer: keras.layers.Layer, largest_depth: float = math.inf) -> list[Any]:
    """The steps of a layer in evaluation, a list.

    A subclass of a known class may compute anything: it is kept as a layer.

    Args:
        layer: A built layer, of Keras or of this package.
        largest_depth: Number, the largest depth of a stack that is taken apart.

    Raises:
        ValueError: If no steps compute what the layer computes.
    """
    steps = _said_by(layer)
    if steps is None:
        return [_kept(layer)]
    return [*_taken_apart(steps, layer, largest_depth)]


def _said_by(layer):
    """The steps that a layer reports, or those of the table; `None` without either."""
    if export_steps := _facts.said_by(layer, "export_steps"):
        return export_steps()
    is_quantized = getattr(layer, "quantization_mode", None) is not None
    read = None if is_quantized else READERS.get(type(layer))
    return read and read(layer)


def _taken_apart(steps, layer, largest_depth):
    """Yields the steps of `layer` with those of the layers among them."""
    for step in steps:
        if isinstance(step, Sum):
            branches = (_taken_apart(b, layer, largest_depth) for b in step.branches)
            yield Sum(tuple(map(list, branches)))
        elif not isinstance(step, Layers):
            yield step
        elif step.depth > largest_depth:
            yield _copied(layer, layer.get_config())
        else:
            for inner in step.layers:
                yield from steps_of(inner, largest_depth)


def _kept(layer, **changed):
    """A layer of Keras as it is.

    Raises:
        ValueError: If the layer needs this package.
    """
    config = plain_config(layer, **changed)
    if config is None:
        raise ValueError(
            f"`model` must have equals of its layers in Keras. {layer.name!r}, a "
            f"{type(layer).__name__}, has none: `keras_bsnn.export.saved_model` takes "
            "any model."
        )
    return _copied(layer, config)


def _copied(layer, config):
    # The layers of a stack have the same name, which those of a model must not have.
    # Only models need a name.
    is_model = isinstance(layer, keras.Model)
    name = f"{layer.name}_{next(NUMBERS)}" if is_model else None
    make = functools.partial(type(layer).from_config, {**config, "name": name})
    return Kept(make, layer.get_weights())


def plain_config(layer: keras.layers.Layer, **changed: Any) -> Config | None:
    """The config of a layer without our constraints and initializers.

    It is `None` if the layer still cannot be loaded without this package.
    """
    config = _without_idle({**layer.get_config(), **changed})
    return None if needs_package([type(layer).__module__, config]) else config


def _without_idle(config):
    if isinstance(config, dict):
        return {
            key: _without_idle(value)
            for key, value in config.items()
            if not (str(key).endswith(IDLE) and needs_package(value))
        }
    if isinstance(config, (list, tuple)):
        return type(config)(map(_without_idle, config))
    return config


def needs_package(thing: Any) -> bool:
    """Whether a model or a config cannot be loaded without this package."""
    return _is_named_in(keras.saving.serialize_keras_object(thing))


def _is_named_in(config):
    if isinstance(config, dict):
        return any(map(_is_named_in, config.values()))
    if isinstance(config, (list, tuple)):
        return any(map(_is_named_in, config))
    return isinstance(config, str) and config.split(">")[0].split(".")[0] == PACKAGE


def reads(*classes: type) -> Callable:
    """Decorates a function that reads the layers of some classes of Keras."""

    def decorate(reader):
        READERS.update(dict.fromkeys(classes, reader))
        return reader

    return decorate


@reads(keras.Sequential)
def _sequential(model):
    return [Layers(model.layers)]


@reads(keras.layers.Dense)
def _dense(layer):
    return _steps.of_dense(layer)


@reads(
    keras.layers.Conv1D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3D,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.EinsumDense,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
def _linear(layer):
    """The layer, and then its activation where that is ours."""
    if plain_config(layer) is not None:
        return [_kept(layer)]
    return [_kept(layer, activation=None), *_steps.of_activation(layer.activation)]


@reads(keras.layers.BatchNormalization)
def _normalization(layer):
    axes = len(layer.get_build_config()["input_shape"])
    if layer.axis not in (-1, axes - 1):
        return [_kept(layer)]
    kernel, bias, _ = _steps.affine(layer)
    return [Scaled(np.diagonal(kernel).copy(), bias)]


@reads(keras.layers.Rescaling)
def _rescaling(layer):
    return [_steps.scaled(layer.scale, layer.offset)]


@reads(*_facts.IDENTITIES)
def _identity(layer):
    return []


@reads(keras.layers.Activation)
def _activation(layer):
    return _steps.of_activation(layer.activation)
