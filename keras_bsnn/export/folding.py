"""Consecutive affine layers as one."""

import itertools

import keras
import numpy as np

from keras_bsnn import _backend
from keras_bsnn._public import public
from keras_bsnn.layers import BatchNormDense, DepthStack, OrthogonalDense

AFFINE = (
    keras.layers.Dense,
    OrthogonalDense,
    BatchNormDense,
    keras.layers.BatchNormalization,
    keras.layers.Rescaling,
    keras.layers.Dropout,  # in evaluation
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


@public
def fold(model):
    """An equal model in which consecutive affine layers are one `keras.layers.Dense`.

    In evaluation a dense layer without activation is an affine map, and so is batch
    normalization: 1,000 layers of them are one matrix. It is computed in float64.

    Args:
        model: a built `keras.Sequential`. Affine are `Dense`, `OrthogonalDense` and
            `BatchNormDense` without activation, `BatchNormalization` of the last axis,
            `Rescaling`, dropout and Gaussian noise (which do nothing in evaluation),
            and a `DepthStack` or `keras.Sequential` of these.

    Returns:
        `keras.Sequential`, built, not compiled: predictions are those of `model` in
        evaluation, without the rounding between its layers. Its other layers are those
        of `model`, shared.

    Raises:
        ValueError: `model` is not a built `keras.Sequential`.

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
    layers, shape = [], model.input_shape
    for are_affine, group in itertools.groupby(_flat(model), is_affine):
        group = [*group]
        if are_affine and any(layer.weights for layer in group):
            group = [_dense(group, shape[-1])]
        for layer in group:
            shape = layer.compute_output_shape(shape)
        layers += group
    return keras.Sequential([keras.Input(model.input_shape[1:]), *layers])


def _flat(layer):
    if not isinstance(layer, keras.Sequential):
        return [layer]
    return itertools.chain.from_iterable(map(_flat, layer.layers))


def is_affine(layer):
    if isinstance(layer, DepthStack):
        return is_affine(layer.block) and not layer.return_sequence
    if isinstance(layer, keras.Sequential):
        return all(map(is_affine, layer.layers))
    linear = keras.activations.linear
    return (
        type(layer) in AFFINE  # one derived from these may compute anything
        and getattr(layer, "quantization_mode", None) is None
        and getattr(layer, "activation", linear) is linear
        and getattr(layer, "axis", -1) == -1
    )


def _dense(layers, inputs):
    kernel, bias = affine_map(layers, inputs)
    dense = keras.layers.Dense(len(bias))
    dense.build((None, inputs))
    dense.set_weights([kernel, bias])
    return dense


def affine_map(layers, inputs, **config):
    """Kernel and bias, in float64: what layers do to zero and to each unit vector.

    Args:
        layers: affine ones, one after the other.
        inputs: number of features of the first.
        config: arguments of the layers that are to differ, such as `activation=None`.
    """
    with _backend.float64():
        x = np.concatenate([np.zeros((1, inputs)), np.eye(inputs)])
        for layer in layers:
            x = _in_float64(layer, x.shape, config)(x, training=False)
        bias, *rows = keras.ops.convert_to_numpy(x)
    return rows - bias, bias


def _in_float64(layer, input_shape, changed):
    """The same layer, with the same weights, but for some arguments."""
    config = {**_config_in_float64(layer.get_config()), **changed}
    wide = type(layer).from_config(config)
    wide.build(input_shape)
    wide.set_weights(layer.get_weights())
    return wide


def _config_in_float64(config):
    if isinstance(config, dict):
        return {
            key: "float64" if key == "dtype" else _config_in_float64(value)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [*map(_config_in_float64, config)]
    return config
