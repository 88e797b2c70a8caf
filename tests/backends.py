"""What the backend that runs has and lacks."""

import keras
import pytest

IS_TORCH = keras.backend.backend() == "torch"
HAS_XLA = not IS_TORCH  # PyTorch's own compiler would unroll the loop over depth
# Keras narrows float64 in many of its operations on JAX and on PyTorch.
HAS_FLOAT64 = keras.backend.backend() == "tensorflow"
NO_XLA = "PyTorch has no XLA"
NO_SAVED_MODEL = "PyTorch writes no SavedModel"
writes_saved_model = pytest.mark.skipif(IS_TORCH, reason=NO_SAVED_MODEL)
