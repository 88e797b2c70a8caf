"""Matrices as functions of orthogonal matrices take them: tall, float32 or wider."""

import functools

import keras
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.ops import _check


def on_tall(function):
    """Presents the matrix to `function` as tall, and in float32 or wider."""

    @functools.wraps(function)
    def wrapped(matrix, *args, **kwargs):
        matrix = ops.convert_to_tensor(matrix)
        check_float(matrix)
        with _backend.exact_matmul():
            result = function(tall(matrix), *args, **kwargs)
        result = ops.cast(result, matrix.dtype)
        return ops.swapaxes(result, -1, -2) if is_wide(matrix) else result

    return wrapped


def tall(matrix):
    """The matrix with no more columns than rows, in float32 or wider."""
    check_matrix(matrix)
    x = at_least_float32(matrix)
    return ops.swapaxes(x, -1, -2) if is_wide(x) else x


def is_wide(matrix):
    return matrix.shape[-2] < matrix.shape[-1]


def check_matrix(matrix):
    if len(matrix.shape) < 2:
        raise ValueError(
            "`matrix` must have the shape (..., m, n). "
            f"Received: shape={tuple(matrix.shape)}"
        )


def check_float(matrix):
    """Refuses integers, because the result would be rounded to them."""
    if not keras.backend.is_float_dtype(matrix.dtype):
        dtype = keras.backend.standardize_dtype(matrix.dtype)
        raise _check.refusal("matrix", "of floating point", dtype)


def at_least_float32(x):
    dtype = keras.backend.result_type(x.dtype, "float32")
    return ops.cast(x, dtype)


def gram(x):
    return ops.matmul(ops.swapaxes(x, -1, -2), x)


def gram_error(gram):
    """Largest entry of `|gram - 1|` in each matrix; infinite where one is NaN."""
    error = ops.abs(gram - ops.eye(gram.shape[-1], dtype=gram.dtype))
    # XLA's maximum on a CPU passes over NaN.
    error = ops.where(ops.isnan(error), float("inf"), error)
    return ops.max(error, axis=(-2, -1))


def error(matrix):
    """The `gram_error` of each matrix."""
    x = tall(matrix)
    with _backend.exact_matmul():
        return gram_error(gram(x))
