"""What the oldest Keras that is supported cannot do, or does otherwise."""

import keras
import pytest

IS_KERAS_3_10 = keras.__version__.startswith("3.10.")


def not_on_keras_3_10(reason):
    return pytest.mark.skipif(IS_KERAS_3_10, reason=f"Keras 3.10 {reason}")
