"""Random orthogonal matrices of the uniform distribution."""

import random

import keras
import numpy as np
from keras import ops

from keras_bsnn._types import Tensor
from keras_bsnn.ops import orthogonal

# Entries. The larger the batch, the wider the matrices for which JAX on a GPU takes the
# batched algorithm, which is slow for wide ones.
LARGEST_PIECE = 2**21


def haar(
    shape: tuple[int, ...], seed: int | keras.random.SeedGenerator | None, dtype: str
) -> Tensor:
    """Independent matrices of the Haar distribution, from QR of Gaussian ones.

    Args:
        shape: Tuple of integers, `(..., m, n)`.
        seed: Integer or `keras.random.SeedGenerator`, or `None` to draw anew at each
            call.
        dtype: String, a floating-point dtype; the result has it or a wider one, at
            least float32.

    Source: Mezzadri, Notices of the AMS 54 (2007) 592.
    """
    *batch, rows, columns = shape
    tall = (*batch, max(rows, columns), min(rows, columns))
    # Drawn by Python, as in Keras: JAX allows that also while it traces.
    seed = random.randrange(2**31) if seed is None else seed
    at_least_float32 = keras.backend.result_type(dtype, "float32")
    normal = keras.random.normal(tall, dtype=at_least_float32, seed=seed)
    q = _in_pieces(orthogonal.qr, normal)
    return ops.swapaxes(q, -1, -2) if rows < columns else q


def _in_pieces(function, x):
    """Applies `function` to parts of a large batch, so that temporaries stay small."""
    if len(x.shape) == 2 or np.prod(x.shape) <= LARGEST_PIECE:
        return function(x)
    size = max(1, int(LARGEST_PIECE / np.prod(x.shape[1:])))
    pieces = [function(x[i : i + size]) for i in range(0, x.shape[0], size)]
    return ops.concatenate(pieces)
