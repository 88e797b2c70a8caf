"""The moments of data, as the law of a signal."""

import keras
import numpy as np

from keras_bsnn._types import Tensor
from keras_bsnn.ops import _check
from keras_bsnn.shaping import _fields
from keras_bsnn.shaping._fields import Field
from keras_bsnn.shaping._signal import Part, Signal


def measured(x: Tensor) -> Signal:
    """A signal of the moments of a batch.

    Args:
        x: tensor of shape `(batch, ..., channels)` with at least two samples.
    """
    x = np.asarray(keras.ops.convert_to_numpy(x), "float64")
    if x.ndim < 2 or len(x) < 2:
        raise _check.refusal("x", "of at least two samples with channels last", x.shape)
    same = Field(np.square(x).mean((0, -1)), _across(x))
    # All pairs of samples, and of these those that are different.
    n, total = len(x), x.sum(0, keepdims=True)
    every = Field(np.square(total[0]).mean(-1), _across(total))
    other = Field(
        *((a - n * b) / (n * (n - 1)) for a, b in zip(every, same, strict=True))
    )
    return Signal((Part(x.shape[-1], x.mean((0, -1)), same, other),))


def _across(x):
    """The mean products by displacement, of each sample with itself."""
    images = np.moveaxis(x, -1, 1)
    return _fields.autocorrelation(images, batch=2).mean((0, 1))
