"""Backbones with loops in other precisions than float32."""

import hub
import keras
import numpy as np
import pytest
from arrays import array
from hub import assert_equal

from keras_bsnn.stacking import stack_layers, unstack

pytestmark = pytest.mark.slow

IS_JAX = keras.backend.backend() == "jax"


@pytest.fixture
def in_float64():
    """Also on JAX, which has float64 only where one asks for it."""
    keras.config.set_floatx("float64")
    if IS_JAX:
        import jax

        jax.config.update("jax_enable_x64", True)
    yield
    if IS_JAX:
        jax.config.update("jax_enable_x64", False)
    keras.config.set_floatx("float32")


@pytest.mark.parametrize("name", hub.BACKBONES)
def test_float64(name, in_float64):
    plain = hub.backbone(name, dtype="float64")
    stacked, x = stack_layers(plain), hub.data(name, plain)
    assert all(w.dtype == "float64" for w in stacked.trainable_weights)
    assert_equal(stacked(x), plain(x), atol=1e-10)
    hub.assert_trains_equally(stacked, unstack(stacked), unstack, x, atol=1e-10)
