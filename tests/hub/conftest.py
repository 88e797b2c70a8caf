"""What several of these tests need."""

import keras
import pytest

IS_JAX = keras.backend.backend() == "jax"


@pytest.fixture
def in_float64():
    """Also on JAX, which has float64 only where one asks for it."""
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    if IS_JAX:
        import jax

        jax.config.update("jax_enable_x64", True)
    yield
    if IS_JAX:
        jax.config.update("jax_enable_x64", False)
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx("float32")
