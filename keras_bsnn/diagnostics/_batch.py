"""Finds batches on which batch normalization makes gradients explode."""

import warnings

import keras
import numpy as np

from keras_bsnn._parts import parts
from keras_bsnn._types import Tensor
from keras_bsnn._warnings import KerasBSNNWarning
from keras_bsnn.layers import BatchNormDense


def check_batch(model: keras.Sequential, x: Tensor) -> int | None:
    """Warns of a batch on which batch normalization makes gradients explode.

    Gradients grow with depth if fewer samples are linearly independent than there are
    units: in a small batch, or in one in which samples repeat.

    Args:
        model: A built `keras.Sequential` with layers of `BatchNormDense`.
        x: A batch of inputs, an array or tensor of shape `(batch, ...)`.

    Returns:
        The number of linearly independent samples where the first of these layers
        receives them, or `None` if there is no such layer without `shrinkage`.

    Raises:
        ValueError: If `model` is not a built `keras.Sequential`.

    Example:

    >>> import keras_bsnn, numpy as np
    >>> model = keras_bsnn.models.batchnorm_mlp(
    ...     10, 4, shrinkage=0.0, input_shape=(8,))
    >>> keras_bsnn.diagnostics.check_batch(model, np.random.randn(32, 8))
    8
    """
    if not isinstance(model, keras.Sequential) or not model.built:
        raise ValueError(
            f"`model` must be a built keras.Sequential. Received: {model!r}"
        )
    x = keras.ops.cast(x, model.compute_dtype)
    for layer in model.layers:
        first = next(parts(layer)).layer
        if isinstance(first, BatchNormDense) and first.shrinkage == 0:
            return _checked_rank(first, keras.ops.convert_to_numpy(x))
        x = layer(x, training=False)
    return None


def _checked_rank(layer, x):
    x = x.reshape(-1, x.shape[-1]).astype("float32")
    rank = int(np.linalg.matrix_rank(x))
    if rank < min(layer.units, x.shape[-1]):
        warnings.warn(
            f"{layer.name}: {rank} of the {len(x)} samples in the batch are linearly "
            f"independent, fewer than the width of {layer.units} units, so that "
            "gradients grow with depth. Take larger batches, or `shrinkage=0.9`.",
            KerasBSNNWarning,
            stacklevel=3,
        )
    return rank
