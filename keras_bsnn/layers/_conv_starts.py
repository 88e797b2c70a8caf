"""How the matrices of an orthogonal convolution start."""

import copy

import keras
import numpy as np
from keras import ops

from keras_bsnn.initializers import DeltaOrthogonal, HaarOrthogonal


def initializers(given, geometry, widths):
    """The initializers of the inner kernel and of the other, from that of the layer.

    `DeltaOrthogonal` stands for an inner kernel that maps channels to such as move
    back, so that all taps of the explicit kernel but the middle are 0.

    Args:
        given: An initializer.
        geometry: A `_conv_geometry.Geometry`.
        widths: Pair of integers, the channels before and after the inner kernel in
            each group.
    """
    if not isinstance(given, DeltaOrthogonal):
        return _with_another_seed(given), given
    outer = HaarOrthogonal(given.gain, given.seed)
    if not geometry.moves:
        return None, outer
    return Embedding(geometry.columns(*widths)), outer


def _with_another_seed(initializer):
    """One with a fixed seed would draw the same for both kernels."""
    seed = getattr(initializer, "seed", None)
    if not isinstance(seed, int):
        return initializer
    other = copy.copy(initializer)
    other.seed = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])
    return other


class Embedding(keras.initializers.Initializer):
    """Matrices with one 1 in each row.

    Args:
        columns: Array of integers, the column of each 1.
    """

    batched = True  # it takes a leading axis of the layers of a `DepthStack`

    def __init__(self, columns):
        self.columns = columns

    def __call__(self, shape, dtype=None):
        value = np.zeros(shape)
        value[..., np.arange(shape[-2]), self.columns] = 1
        return ops.convert_to_tensor(value, dtype)
