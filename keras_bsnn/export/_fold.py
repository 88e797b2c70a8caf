"""Consecutive affine layers as one."""

import functools
import itertools

import keras

from keras_bsnn import _facts
from keras_bsnn._steps import Kept
from keras_bsnn.export._reading import steps_of
from keras_bsnn.export._writing import written


def fold(model: keras.Sequential) -> keras.Sequential:
    """Returns an equal model whose consecutive affine layers are one layer.

    In evaluation a dense layer without activation is an affine map, and so is batch
    normalization: 1,000 layers of them are one matrix. It is computed in float64.

    Args:
        model: A built `keras.Sequential`. The affine layers are `Dense`,
            `OrthogonalDense` and `BatchNormDense` without activation,
            `BatchNormalization` of the last axis, `Rescaling`, dropout and Gaussian
            noise (which do nothing in evaluation), and a `DepthStack` or
            `keras.Sequential` of these.

    Returns:
        A `keras.Sequential`, built, not compiled. Its predictions are those of `model`
        in evaluation, without the rounding between its layers. Affine layers become one
        `keras.layers.Dense`, or two around a bottleneck, which is less work; or one
        `keras.layers.Rescaling` if they only scale. The other layers are shared with
        `model`.

    Raises:
        ValueError: If `model` is not a built `keras.Sequential`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras.Sequential([keras.Input((8,)), keras_bsnn.layers.DepthStack(
    ...     keras_bsnn.layers.BatchNormDense(8), 1000)])
    >>> [type(layer).__name__ for layer in keras_bsnn.export.fold(model).layers]
    ['Dense']
    """
    if not isinstance(model, keras.Sequential) or not model.built:
        raise ValueError(
            f"`model` must be a built keras.Sequential. Received: {model!r}"
        )
    groups = itertools.groupby(_flat(model), _facts.is_affine)
    steps = [step for _, group in groups for step in _steps_of([*group])]
    return keras.Sequential(written(steps, model.input_shape[1:]).layers)


def _flat(layer):
    if not isinstance(layer, keras.Sequential):
        return [layer]
    return itertools.chain.from_iterable(map(_flat, layer.layers))


def _steps_of(layers):
    """The steps of consecutive layers, which are all affine or all not."""
    if _facts.is_affine(layers[0]) and any(layer.weights for layer in layers):
        return itertools.chain.from_iterable(map(steps_of, layers))
    return [
        Kept(functools.partial(lambda layer: layer, layer), layer.get_weights())
        for layer in layers
    ]
