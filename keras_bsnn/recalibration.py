"""Statistics of batch normalization for evaluation, from one consistent pass."""

import contextlib
import functools
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_bsnn import _backend, _calls
from keras_bsnn._public import public
from keras_bsnn.layers import BatchNormDense, DepthStack

NORMALIZING = (keras.layers.BatchNormalization, BatchNormDense)
SAMPLES_AT_ONCE = 1000  # of an array


@public
def recalibrate(model, dataset, folder=None):
    """Replaces the moving averages of batch normalization by statistics of a data set.

    Moving averages are collected while the layers below still change, and behind many
    layers their errors multiply. Here each layer gets the exact mean and variance, over
    all of the data, of what it receives when the layers below have theirs already.

    Args:
        model: a built Keras model. The data pass once through a `keras.Sequential`, and
            once through each layer of a `DepthStack`. In a model of another kind, once
            through the model for each layer that normalizes.
        dataset: inputs, or pairs of inputs and targets, in batches, as a
            `tf.data.Dataset` or another object that can be iterated over repeatedly; or
            an array of inputs. How they are batched does not matter.
        folder: an existing folder for the outputs of one layer at a time, where these
            are larger than memory; `None` to keep them in memory.

    Layers of `keras.layers.BatchNormalization` and `BatchNormDense` are recalibrated,
    but for those that are frozen.

    Raises:
        ValueError: `dataset` is empty, endless, or can be iterated over only once, or
            `model` is not built.

    Source: this package; the accuracy of a linear network of 1,000 layers in evaluation
    is at chance in Meterez et al., arXiv 2310.02012.

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
    """`recalibrate`, which compiles layers once for many calls.

    Args:
        folder: as there.
    """

    def __init__(self, folder=None):
        self.folder = folder
        self.compiled = {}

    def __call__(self, model, dataset):
        if not model.built:
            raise ValueError(f"`model` must be built: {model.name!r} is not.")
        _check(dataset)
        variables = model.non_trainable_variables
        before = [keras.ops.convert_to_numpy(variable) for variable in variables]
        try:
            with tempfile.TemporaryDirectory(dir=self.folder) as self.temporary:
                self.through(model, _Inputs(dataset))
        except BaseException:  # also where a user interrupts it
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            raise

    def through(self, layer, data):
        """Sets the statistics of a layer. Returns what leaves it, in batches."""
        if isinstance(layer, keras.Sequential):
            return functools.reduce(self._next, layer.layers, data)
        if isinstance(layer, DepthStack) and _normalizers(layer.block):
            return functools.reduce(self._next, layer.each_layer(), data)
        if isinstance(layer, NORMALIZING):
            self.set_statistics(layer, data)
        elif _normalizers(layer):
            for part in _in_order_of_calls(layer, next(iter(data))):
                self.through(part, self.kept(_entering(part, layer, data)))
        return self.kept(map(self.evaluated(layer), data))

    def _next(self, data, layer):
        return self.through(layer, data)

    def set_statistics(self, layer, data):
        """The moments of what a layer normalizes, over all batches."""
        if not layer.trainable:
            return
        if isinstance(layer, BatchNormDense):
            moments = _Moments(-1)
            data = map(self.evaluated(layer, "project"), data)
        else:
            moments = _Moments(layer.axis)
        for x in data:
            moments.add(x)
        if getattr(layer, "moving_mean", None) is None:  # around zero, not the mean
            layer.moving_variance.assign(moments.mean_square)
        else:
            layer.moving_mean.assign(moments.mean)
            layer.moving_variance.assign(moments.variance)

    def kept(self, batches):
        """Batches that are iterated over once, made such that they can be again."""
        if self.folder is None:
            return list(batches)
        return _Files(batches, self.temporary)

    def evaluated(self, layer, method="__call__"):
        """A layer in evaluation, compiled once, whatever its weights are."""
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
    """The layers within a layer that have statistics, or are stacks of such."""
    return [part for part in layer._flatten_layers() if _normalizes(part)]


def _normalizes(layer):
    if isinstance(layer, DepthStack):
        return bool(_normalizers(layer.block))
    return isinstance(layer, NORMALIZING)


def _in_order_of_calls(model, x):
    """The layers of `model` with statistics, as they are first called."""
    with _recorded(_normalizers(model)) as calls:
        model(x, training=False)
    return list(dict.fromkeys(layer for layer, _ in calls))


def _entering(layer, model, data):
    """What enters a layer of `model`, for each batch and each of its calls."""
    for x in data:
        with _recorded([layer]) as calls:
            model(x, training=False)
        yield from (inputs for _, inputs in calls)


@contextlib.contextmanager
def _recorded(layers):
    """Yields a list that gets, for each call of one of `layers`, it and its inputs."""
    calls = []

    def recorder(layer, call):
        def recorded(inputs, *args, **kwargs):
            calls.append((layer, keras.ops.convert_to_numpy(inputs)))
            return call(inputs, *args, **kwargs)

        return recorded

    with _calls.replaced(layers, recorder):
        yield calls


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


class _Inputs:
    """The inputs of a data set, in batches, each time it is iterated over."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        if hasattr(self.dataset, "shape"):
            return (
                self.dataset[i : i + SAMPLES_AT_ONCE]
                for i in range(0, len(self.dataset), SAMPLES_AT_ONCE)
            )
        inputs = (keras.utils.unpack_x_y_sample_weight(x)[0] for x in self.dataset)
        return (keras.tree.map_structure(np.asarray, x) for x in inputs)


class _Files:
    """Arrays that are kept in files.

    Args:
        arrays: iterable of them. It may read files that are in the folder already.
        folder: existing, for as long as the files are needed.
    """

    def __init__(self, arrays, folder):
        self.paths = []
        folder = tempfile.mkdtemp(dir=folder)
        for i, x in enumerate(arrays):
            self.paths.append(Path(folder) / f"{i}.npy")
            np.save(self.paths[-1], x)

    def __iter__(self):
        return map(np.load, self.paths)

    def __del__(self):
        for path in self.paths:
            path.unlink(missing_ok=True)


def _check(dataset):
    if iter(dataset) is dataset:
        raise ValueError(
            "`dataset` must be one that can be iterated over repeatedly, such as a "
            f"tf.data.Dataset or a list of batches. Received: {dataset!r}"
        )
    if getattr(dataset, "cardinality", lambda: 0)() == -1:
        raise ValueError(
            "`dataset` must end: take(steps) of a tf.data.Dataset that is repeated. "
            f"Received: {dataset!r}"
        )
    if next(iter(dataset), None) is None:
        raise ValueError("`dataset` must have at least one batch: it is empty.")
