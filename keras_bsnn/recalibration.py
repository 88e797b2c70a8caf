"""Statistics of batch normalization for evaluation, from one consistent pass."""

import functools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bsnn import _backend, _batches
from keras_bsnn._facts import is_normalizing
from keras_bsnn._parts import nested, parts
from keras_bsnn.diagnostics._instrument import instrumented

__all__ = ["recalibrate"]


def recalibrate(
    model: keras.layers.Layer, dataset: Iterable, folder: str | Path | None = None
) -> None:
    """Replaces the moving averages of batch normalization by statistics of a data set.

    Moving averages are collected while the layers below still change, and after many
    layers their errors multiply. This function gives each layer the exact mean and
    variance, over all of the data, of what it receives once the layers below have
    theirs. It sets the statistics of `keras.layers.BatchNormalization` and
    `keras_bsnn.layers.BatchNormDense`, except in layers that are frozen.

    Args:
        model: A built Keras model. The data pass once through a `keras.Sequential`, and
            once through each layer of a `DepthStack`. They pass through a model of
            another kind once for each layer that normalizes.
        dataset: An array of inputs, or batches of inputs or of `(inputs, targets)`, as
            a `tf.data.Dataset` or another object that can be iterated over repeatedly.
            The size of the batches does not matter.
        folder: Path of an existing folder for the outputs of one layer at a time, if
            they do not fit into memory. Defaults to `None`: they are kept in memory.

    Raises:
        ValueError: If `dataset` is empty, endless, or can be iterated over only once,
            or if `model` is not built.

    Source: this package. Without it, the accuracy of a linear network of 1,000 layers
    in evaluation is at chance in Meterez et al., arXiv 2310.02012.

    Example:

    >>> import keras, keras_bsnn, numpy as np
    >>> model = keras.Sequential([keras_bsnn.layers.BatchNormDense(8)])
    >>> x = np.random.default_rng(0).normal(size=(500, 8)).astype("float32")
    >>> model.build(x.shape)
    >>> keras_bsnn.recalibration.recalibrate(model, x)
    >>> bool(abs(model.predict(x, verbose=0).std(axis=0) - 1).max() < 1e-4)
    True
    """
    Recalibration(folder)(model, dataset)


class Recalibration:
    """Does what `recalibrate` does, and compiles layers once for many calls.

    Args:
        folder: Path of an existing folder, or `None`, as in `recalibrate`.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = folder
        self.compiled: dict[tuple[Any, str], Callable] = {}

    def __call__(self, model: keras.layers.Layer, dataset: Iterable) -> None:
        if not model.built:
            raise ValueError(f"`model` must be built: {model.name!r} is not.")
        _batches.check_dataset(dataset)
        variables = model.non_trainable_variables
        before = [keras.ops.convert_to_numpy(variable) for variable in variables]
        try:
            with tempfile.TemporaryDirectory(dir=self.folder) as self.temporary:
                self.through(model, _batches.Inputs(dataset))
        except BaseException:  # also if a user interrupts it
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            raise

    def through(self, layer, data):
        """Sets the statistics of a layer, and returns its outputs in batches."""
        if isinstance(layer, keras.Sequential):
            return functools.reduce(self._next, layer.layers, data)
        if is_normalizing(layer):
            self.set_statistics(layer, data)
        elif _is_normalizing_stack(layer):
            return functools.reduce(self._next, layer.each_layer(), data)
        elif normalizers := _normalizers(layer):
            inputs_of = _Recorder(layer, normalizers)
            first = inputs_of(next(iter(data)))
            for part in dict.fromkeys(part for part, _ in first):
                self.through(part, self.kept(_entering(part, inputs_of, data)))
        return self.kept(map(self.evaluated(layer), data))

    def _next(self, data, layer):
        return self.through(layer, data)

    def set_statistics(self, layer, data):
        """Sets the moments of what a layer normalizes, over all batches."""
        if not layer.trainable:
            return
        if hasattr(layer, "project"):  # it normalizes a product with its kernel
            data = map(self.evaluated(layer, "project"), data)
        moments = _Moments(getattr(layer, "axis", -1))
        for x in data:
            moments.add(x)
        if getattr(layer, "moving_mean", None) is None:  # around zero, not the mean
            layer.moving_variance.assign(moments.mean_square)
        else:
            layer.moving_mean.assign(moments.mean)
            layer.moving_variance.assign(moments.variance)

    def kept(self, batches):
        """Returns batches that can be iterated over repeatedly."""
        if self.folder is None:
            return list(batches)
        return _batches.Files(batches, self.temporary)

    def evaluated(self, layer, method="__call__"):
        """Returns a layer in evaluation, compiled once, whatever its weights are."""
        key = layer, method
        if key not in self.compiled:
            self.compiled[key] = _compiled(layer, method)
        return self.compiled[key]


def _compiled(layer, method):
    settings = {"training": False} if method == "__call__" else {}

    @_backend.traced_once
    def function(x, *values):
        with keras.StatelessScope(zip(layer.variables, values, strict=True)):
            return getattr(layer, method)(x, **settings)

    def evaluated(x):
        y = function(x, *map(_backend.read, layer.variables))
        return keras.ops.convert_to_numpy(y)

    return evaluated


def _normalizers(layer):
    """Returns the layers in a layer that normalize, and the stacks of such layers."""
    return [
        inner
        for inner in nested(layer)
        if is_normalizing(inner) or _is_normalizing_stack(inner)
    ]


def _is_normalizing_stack(layer):
    return not isinstance(layer, keras.Model) and any(
        part.stacked and any(map(is_normalizing, nested(part.layer)))
        for part in parts(layer)
    )


def _entering(part, inputs_of, data):
    """Yields what enters a layer of a model, for each batch and each of its calls."""
    for x in data:
        yield from (inputs for layer, inputs in inputs_of(x) if layer is part)


class _Recorder:
    """Calls a model in evaluation, and returns what enters some of its layers.

    Args:
        model: a built layer or model, which is not changed.
        layers: the layers in it.
    """

    def __init__(self, model, layers):
        self._calls = []
        self._twin = instrumented(model, layers, self._recorded)

    def __call__(self, x):
        """Returns a pair of a layer and its inputs for each call, in their order."""
        self._calls.clear()
        self._twin(x, training=False)
        return list(self._calls)

    def _recorded(self, layer, copy):
        call = copy.call

        def recorded(inputs, *args, **kwargs):
            self._calls.append((layer, keras.ops.convert_to_numpy(inputs)))
            return call(inputs, *args, **kwargs)

        return recorded


class _Moments:
    """Mean and variance of each feature over batches, in float64.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979), equation 2.1.
    """

    def __init__(self, axis):
        self.axis = axis
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, x):
        x = np.moveaxis(np.asarray(x, "float64"), self.axis, -1)
        x = x.reshape(-1, x.shape[-1])
        mean, count = x.mean(axis=0), len(x)
        share = count / (self.count + count)
        difference = mean - self.mean
        self.squares += np.square(x - mean).sum(axis=0)
        self.squares += np.square(difference) * self.count * share
        self.mean += difference * share
        self.count += count

    @property
    def variance(self):
        return self.squares / self.count

    @property
    def mean_square(self):
        return self.variance + np.square(self.mean)
