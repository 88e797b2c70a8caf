"""Models on their way out: SavedModel, and linear layers folded into one."""

import itertools
import os
import tempfile

import keras
import numpy as np

from keras_bsnn._public import public
from keras_bsnn.layers import BatchNormDense, DepthStack, OrthogonalDense
from keras_bsnn.ops import _backend

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
def saved_model(model, path):
    """Exports a model as a TensorFlow SavedModel, which is served without this package.

    The folder appears complete or not at all.

    Args:
        model: a built Keras model.
        path: of the folder to create.

    Raises:
        FileExistsError: `path` exists already.

    Example:

    >>> import os, tempfile, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=8, input_shape=(4,))
    >>> path = os.path.join(tempfile.mkdtemp(), "model")
    >>> keras_bsnn.export.saved_model(model, path)
    >>> sorted(os.listdir(path))
    ['assets', 'fingerprint.pb', 'saved_model.pb', 'variables']
    """
    path = os.path.abspath(path)
    if os.path.lexists(path):
        raise FileExistsError(
            f"`path` must not exist yet, so that no model is lost. Received: {path}"
        )
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        draft = os.path.join(folder, "model")
        model.export(draft, verbose=False)
        os.rename(draft, path)


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
    for is_affine, group in itertools.groupby(_flat(model), _is_affine):
        group = [*group]
        if is_affine and any(layer.weights for layer in group):
            group = [_dense(group, shape[-1])]
        for layer in group:
            shape = layer.compute_output_shape(shape)
        layers += group
    return keras.Sequential([keras.Input(model.input_shape[1:]), *layers])


def _flat(layer):
    if not isinstance(layer, keras.Sequential):
        return [layer]
    return itertools.chain.from_iterable(map(_flat, layer.layers))


def _is_affine(layer):
    if isinstance(layer, DepthStack):
        return _is_affine(layer.block) and not layer.return_sequence
    if isinstance(layer, keras.Sequential):
        return all(map(_is_affine, layer.layers))
    linear = keras.activations.linear
    return (
        isinstance(layer, AFFINE)
        and getattr(layer, "activation", linear) is linear
        and getattr(layer, "axis", -1) == -1
    )


def _dense(layers, inputs):
    """One layer that does what affine layers do to zero and to each unit vector."""
    with _backend.float64():
        x = np.concatenate([np.zeros((1, inputs)), np.eye(inputs)])
        for layer in layers:
            x = _in_float64(layer, x.shape)(x, training=False)
        offset, *rows = keras.ops.convert_to_numpy(x)
    dense = keras.layers.Dense(len(offset))
    dense.build((None, inputs))
    dense.set_weights([rows - offset, offset])
    return dense


def _in_float64(layer, input_shape):
    """The same layer, with the same weights."""
    wide = type(layer).from_config(_config_in_float64(layer.get_config()))
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
