"""What the property tests draw, and how they say what they are about."""

import keras
import numpy as np
from backends import HAS_FLOAT64
from hypothesis import is_hypothesis_test, settings
from hypothesis import strategies as st

IS_JAX = keras.backend.backend() == "jax"
DTYPES = ["float16", "bfloat16", "float32"] + ["float64"] * HAS_FLOAT64
WIDE = [dtype for dtype in DTYPES if dtype in ("float32", "float64")]
# Of a rounded orthogonal matrix: the largest entry of `|W^T W - 1|`.
ROUNDING = {"float16": 2**-8, "bfloat16": 2**-5, "float32": 6e-6, "float64": 6e-6}
# JAX compiles each operation for each shape: there shapes recur.
FEW_SHAPES = [(4, 4), (5, 2), (2, 2, 5)] + [(1, 1)] * (not IS_JAX)
SMOOTH = ["tanh", "gelu", "silu", "elu", "sigmoid", "softplus", "mish", "selu"]
ACTIVATIONS = [*SMOOTH, "relu", "leaky_relu"]

seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([4, 5]) if IS_JAX else st.integers(1, 6)
dtypes = st.sampled_from(DTYPES)
scales = st.floats(-3, 3).map(lambda exponent: 10.0**exponent)
shapes = (
    st.sampled_from(FEW_SHAPES)
    if IS_JAX
    else st.tuples(st.lists(st.integers(1, 3), max_size=2), sizes, sizes).map(
        lambda drawn: (*drawn[0], *drawn[1:])
    )
)


def rarely(test):
    """For a test of which an example takes long."""
    return settings(max_examples=max(2, settings.default.max_examples // 5))(test)


def property_of(*symbols):
    """Marks a test as one of a property of public symbols.

    `test_every_name.py` looks for these marks.
    """

    def mark(test):
        assert is_hypothesis_test(test) and all(map(callable, symbols))
        return test

    return mark


def normal(shape, seed, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(_numpy(dtype))


def orthogonal_matrix(shape, seed, dtype="float64"):
    """By numpy, independent of the code under test."""
    *batch, rows, columns = shape
    tall = (*batch, max(rows, columns), min(rows, columns))
    q = np.linalg.qr(normal(tall, seed))[0]
    q = np.swapaxes(q, -1, -2) if rows < columns else q
    return q.astype(_numpy(dtype))


def error_of(matrix):
    """Largest entry of `|W^T W - 1|` of tall or wide matrices, in float64."""
    w = array(matrix)
    w = np.swapaxes(w, -1, -2) if w.shape[-2] < w.shape[-1] else w
    return np.abs(np.swapaxes(w, -1, -2) @ w - np.eye(w.shape[-1])).max()


def array(tensor):
    """As an array of float64."""
    tensor = keras.ops.cast(tensor, WIDE[-1]) if hasattr(tensor, "dtype") else tensor
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def _numpy(dtype):
    """NumPy's own name: it has no bfloat16 but that of ml_dtypes."""
    import ml_dtypes

    return ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
