"""Steps of bounded operator norm."""

from keras import ops

from keras_bsnn._types import Tensor
from keras_bsnn.ops.orthogonal import check_steps

__all__ = ["spectral_sign"]

LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
LARGEST = 1.203  # maximum of the polynomial on [0, 1.25]
TINY = 1e-30  # in norms, so that the result for zero is zero


def spectral_sign(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix with all its singular values brought near 1.

    Each step is `X <- (a + b A + c A^2) X` with `A = X X^T`. The first one starts from
    a matrix of Schatten 8-norm 1, the eighth root of the sum of the eighth powers of
    the singular values, which `A^2` shows: of `n` equal singular values, each is then
    `n^(-1/8)`, where the usual Frobenius norm leaves `n^(-1/2)`.

    The polynomial rises steeply at 0 and does not converge: singular values of at least
    0.062 (2 steps), 0.018 (3), 5.2e-3 (4) or 1.5e-3 (5) of the norm end between 0.68
    and 1.203, and smaller ones end below. The function
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
    (2024), with its coefficients; the norm is this package's.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import spectral
    >>> x = spectral.spectral_sign(np.diag([5.0, -0.1]).astype("float32"))
    >>> bool(np.all(np.abs(np.abs(np.linalg.eigvals(x)) - 0.95) < 0.27))
    True
    """
    check_steps(steps)
    if matrix.shape[-2] > matrix.shape[-1]:  # `X^T X` is smaller
        wide = ops.swapaxes(matrix, -1, -2)
        return ops.swapaxes(spectral_sign(wide, steps), -1, -2)
    x = matrix / (_frobenius_norm(matrix) + TINY)
    gram, square = _powers(x)
    norm = (_sum_of_squares(square) + TINY) ** (1 / 8)
    x = _step(x / norm, gram / norm**2, square / norm**4)
    for _ in range(steps - 1):
        x = _step(x, *_powers(x))
    return x


def _powers(x):
    """`X X^T` and its square."""
    gram = ops.matmul(x, ops.swapaxes(x, -1, -2))
    return gram, ops.matmul(gram, gram)


def _step(x, gram, square):
    return LINEAR * x + ops.matmul(CUBIC * gram + QUINTIC * square, x)


def _frobenius_norm(matrix):
    """It is scaled so that squares of small entries do not underflow."""
    largest = ops.max(ops.abs(matrix), axis=(-2, -1), keepdims=True) + TINY
    return largest * ops.sqrt(_sum_of_squares(matrix / largest))


def _sum_of_squares(matrix):
    return ops.sum(ops.square(matrix), axis=(-2, -1), keepdims=True)
