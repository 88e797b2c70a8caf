import warnings

import keras
import numpy as np
import pytest

from keras_bsnn import diagnostics
from keras_bsnn.models import batchnorm_mlp


def batchnorm(shrinkage=0.0):
    return batchnorm_mlp(5, 12, None, shrinkage=shrinkage, input_shape=(20,))


def test_a_batch_that_is_too_small_or_repeats_is_told():
    x = np.random.default_rng(0).normal(size=(40, 20)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert diagnostics.check_batch(batchnorm(), x) == 20
        assert diagnostics.check_batch(batchnorm(shrinkage=0.9), x[:5]) is None
        batchnorm()(x, training=True)
        batchnorm(shrinkage=0.9)(x[:5], training=True)
    x[8:] = x[0]
    with pytest.warns(UserWarning, match="8 of the 40 samples .* width of 12 units"):
        assert diagnostics.check_batch(batchnorm(), x) == 8
    with pytest.warns(UserWarning, match="batch of 11 samples .* width of 12 units"):
        batchnorm()(x[:11], training=True)
    with pytest.raises(ValueError, match="`model` must be a built"):
        diagnostics.check_batch(keras.Sequential([keras.layers.Dense(2)]), x)
