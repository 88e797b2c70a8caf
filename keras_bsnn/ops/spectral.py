"""Steps of bounded operator norm."""

from keras import ops

from keras_bsnn._types import Tensor
from keras_bsnn.ops.orthogonal import check_steps

__all__ = ["spectral_sign"]

LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
LARGEST = 1.203  # maximum of the polynomial on [0, 1.25]


def spectral_sign(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix with all its singular values brought near 1.

    Each step is `X <- a X + (b A + c A^2) X` with `A = X X^T`, and the first one starts
    from a matrix of Frobenius norm 1. The polynomial rises steeply at 0 and does not
    converge: singular values of at least 0.018 (3 steps), 5.2e-3 (4) or 1.5e-3 (5) of
    the norm end between 0.68 and 1.203, and smaller ones end below. The function
    `keras_bsnn.ops.orthogonal.polar` is exact, and slower.

    Args:
        matrix: A tensor of shape `(..., m, n)`, float32 or wider. The result for a
            skew-symmetric matrix is skew-symmetric, and that for zero is zero.
        steps: The number of steps, an integer from 1 to 100. Defaults to 5.

    Returns:
        A tensor of the same shape and dtype, of operator norm at most 1.203.

    Raises:
        ValueError: `steps` is out of range.

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks"
    (2024), with its coefficients.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import spectral
    >>> x = spectral.spectral_sign(np.diag([5.0, -0.1]).astype("float32"))
    >>> bool(np.all(np.abs(np.abs(np.linalg.eigvals(x)) - 0.95) < 0.27))
    True
    """
    check_steps(steps)
    x = matrix / (_norm(matrix) + 1e-30)
    for _ in range(steps):
        gram = ops.matmul(x, ops.swapaxes(x, -1, -2))
        shaped = CUBIC * gram + QUINTIC * ops.matmul(gram, gram)
        x = LINEAR * x + ops.matmul(shaped, x)
    return x


def _norm(matrix: Tensor) -> Tensor:
    """Frobenius norm, scaled so that squares of small entries do not underflow."""
    largest = ops.max(ops.abs(matrix), axis=(-2, -1), keepdims=True) + 1e-30
    squares = ops.sum(ops.square(matrix / largest), axis=(-2, -1), keepdims=True)
    return largest * ops.sqrt(squares)
