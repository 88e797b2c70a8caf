"""Matrices with orthonormal rows or columns: retractions, tangent space, error.

Shapes are `(..., m, n)`, and leading axes are a batch. A tall matrix (m >= n) is
orthogonal if its columns are orthonormal, a wide one if its rows are. All computations
run in float32 or wider and return the dtype that they were given.
"""

from keras import ops

from keras_bsnn import _backend
from keras_bsnn._types import Tensor
from keras_bsnn.ops import _matrix, _retract
from keras_bsnn.ops._retract import (
    check_steps,
    estimated_error,
    retract,
    retract_where_needed,
)

__all__ = [
    "cayley",
    "check_steps",
    "estimated_error",
    "newton_schulz",
    "orthogonality_error",
    "polar",
    "project_tangent",
    "qr",
    "retract",
    "retract_where_needed",
    "tangent_gradient",
    "tangent_matmul",
]


def orthogonality_error(matrix: Tensor) -> Tensor:
    """Largest entry of `|W^T W - 1|` (tall) or `|W W^T - 1|` (wide), for each matrix.

    Args:
        matrix: Tensor of shape `(..., m, n)`.

    Returns:
        Tensor of shape `(...)`, float32 or wider; infinite if an entry is not finite.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> float(orthogonal.orthogonality_error(2 * np.eye(3)))
    3.0
    """
    return _matrix.error(ops.convert_to_tensor(matrix))


@_matrix.on_tall
def newton_schulz(matrix: Tensor, steps: int = 2) -> Tensor:
    """Newton-Schulz steps `X <- X (3 - X^T X) / 2` toward the polar factor.

    A step squares the error: 1e-1, 8e-3, 5e-5, 2e-9, until rounding (about 5e-7).

    A step takes a singular value above sqrt(3) to a negative one, that is, toward an
    orthogonal matrix other than the nearest. Such a matrix is therefore scaled, instead
    of taking the first step, so that its singular values are at most 1: the steps then
    converge to the polar factor from any matrix of full rank whose entries are below
    1e6, though it takes many of them if the matrix is far from orthogonal.

    Args:
        matrix: Tensor of shape `(..., m, n)`.
        steps: Integer from 1 to 100, the number of steps. Defaults to 2.

    Returns:
        Tensor of the shape and dtype of `matrix`.

    Source: Björck and Bowie, SIAM J. Numer. Anal. 8 (1971) 358.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> x = orthogonal.newton_schulz(1.01 * np.eye(4, dtype="float32"))
    >>> bool(orthogonal.orthogonality_error(x) < 1e-6)
    True
    """
    check_steps(steps)
    change = _change(matrix)
    # The step changes a singular value `s` by `|s - s^3| / 2`. A norm of the change
    # below sqrt(3) shows that all are below sqrt(3). Otherwise, those above it are at
    # most the cube root of three times that norm.
    squared = ops.sum(ops.square(change), axis=(-2, -1), keepdims=True)
    scale = (9 * ops.maximum(squared, 3.0)) ** (-1 / 6)
    matrix = ops.where(squared < 3, matrix + change, scale * matrix)
    for _ in range(steps - 1):
        matrix = matrix + _change(matrix)
    return matrix


def _change(matrix):
    return 0.5 * (matrix - ops.matmul(matrix, _matrix.gram(matrix)))


@_matrix.on_tall
def cayley(matrix: Tensor, steps: int = 3) -> Tensor:
    """Cayley steps `X <- 2 X (1 + X^T X)^{-1}` toward the polar factor.

    The Cayley transform of the skew-symmetric `[[0, X], [-X^T, 0]]` is orthogonal, and
    this step is its off-diagonal block. A singular value `s` becomes
    `2 s / (1 + s^2)`, at most 1: unlike Newton-Schulz it converges from any matrix of
    full rank, at the price of a linear solve.

    Args:
        matrix: Tensor of shape `(..., m, n)`.
        steps: Integer from 1 to 100, the number of steps. Defaults to 3.

    Returns:
        Tensor of the shape and dtype of `matrix`.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> x = orthogonal.cayley(1.1 * np.eye(4, dtype="float32"))
    >>> bool(orthogonal.orthogonality_error(x) < 1e-6)
    True
    """
    check_steps(steps)
    identity = ops.eye(matrix.shape[-1], dtype=matrix.dtype)
    # Entries above 1 are far from orthogonal; without this their squares overflow.
    largest = ops.max(ops.abs(matrix), axis=(-2, -1), keepdims=True)
    matrix = matrix / ops.maximum(1.0, largest)
    for _ in range(steps):
        solved = ops.solve(
            identity + _matrix.gram(matrix), ops.swapaxes(matrix, -1, -2)
        )
        matrix = 2 * ops.swapaxes(solved, -1, -2)
    return matrix


@_matrix.on_tall
def qr(matrix: Tensor) -> Tensor:
    """The Q factor of the QR decomposition in which R has a positive diagonal.

    Args:
        matrix: Tensor of shape `(..., m, n)`, however far from orthogonal.

    Returns:
        Tensor of the shape and dtype of `matrix`. Of a Gaussian matrix it has the Haar
        law (Mezzadri, Notices of the AMS 54 (2007) 592).

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> w = orthogonal.qr(np.array([[3.0, 1.0], [4.0, 7.0]]))
    >>> np.round(w, 6).tolist()
    [[0.6, -0.8], [0.8, 0.6]]
    """
    q, r = ops.qr(matrix)
    diagonal = ops.diagonal(r, axis1=-2, axis2=-1)
    one = ops.ones_like(diagonal)
    return q * ops.expand_dims(ops.where(diagonal < 0, -one, one), axis=-2)


def polar(matrix: Tensor) -> Tensor:
    """The polar factor: the orthogonal matrix nearest to `matrix`, however far it is.

    Newton-Schulz steps on a matrix scaled to singular values of at most 1, to
    convergence. Directions that the matrix leaves undetermined (singular values below
    1e-7 of the largest) are completed arbitrarily; entries that are not finite count
    as 0.

    Args:
        matrix: Tensor of shape `(..., m, n)`.

    Returns:
        Tensor of the shape and dtype of `matrix`.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> bool(np.allclose(orthogonal.polar(1e30 * np.eye(2)), np.eye(2), atol=1e-5))
    True
    """
    matrix = ops.convert_to_tensor(matrix)
    return _retract.converge(matrix, ops.full(matrix.shape[:-2], float("inf")))


def project_tangent(matrix: Tensor, direction: Tensor) -> Tensor:
    """Projects a direction to the tangent space of the orthogonal matrices.

    `G - W sym(W^T G)` for a tall `W`, with `sym(A) = (A + A^T) / 2`: the part of `G`
    along which the columns stay orthonormal to first order.

    Args:
        matrix: Orthogonal tensor of shape `(..., m, n)`.
        direction: Tensor of the same shape and dtype, for instance a gradient.

    Returns:
        Tensor of that shape and dtype.

    Raises:
        ValueError: If the shapes differ.

    Source: Edelman, Arias, Smith, SIAM J. Matrix Anal. 20 (1998) 303, eq. 2.4 and
    2.27 with the Euclidean metric.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> float(np.trace(orthogonal.project_tangent(np.eye(2), np.ones((2, 2)))))
    0.0
    """
    is_known = _backend.is_concrete(direction)
    if is_known and tuple(matrix.shape) != tuple(direction.shape):
        raise ValueError(
            "`direction` must have the shape of `matrix`. "
            f"Received: {tuple(direction.shape)}, {tuple(matrix.shape)}"
        )
    if _matrix.is_wide(matrix):
        transposed = (ops.swapaxes(x, -1, -2) for x in (matrix, direction))
        return ops.swapaxes(project_tangent(*transposed), -1, -2)
    product = ops.matmul(ops.swapaxes(matrix, -1, -2), direction)
    symmetric = 0.5 * (product + ops.swapaxes(product, -1, -2))
    return ops.subtract(direction, ops.matmul(matrix, symmetric))


def tangent_gradient(
    inputs: Tensor, outputs: Tensor, grad_inputs: Tensor, grad_outputs: Tensor
) -> Tensor:
    """The gradient of a square orthogonal kernel, projected to its tangent space.

    With `Z = X W`, the gradient `D` of `Z` and `P = D W^T` of `X`, the gradient of `W`
    is `G = X^T D`, and its projection `(G - W G^T W) / 2 = (X^T D - P^T Z) / 2`: one
    product of the size of the gradient's own, where `project_tangent` takes two of
    three matrices as large as the kernel.

    Args:
        inputs: `X`, a tensor of shape `(..., samples, units)`.
        outputs: `Z`, of the same shape.
        grad_inputs: `P`, the gradient with respect to `inputs`.
        grad_outputs: `D`, the gradient with respect to `outputs`.

    Returns:
        Tensor of shape `(..., units, units)`.

    Source: this package; the projection is that of `project_tangent`.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> x, d = np.random.randn(2, 5, 3)
    >>> w = np.eye(3)
    >>> g = orthogonal.tangent_gradient(x, x @ w, d @ w.T, d)
    >>> bool(np.allclose(g, orthogonal.project_tangent(w, x.T @ d)))
    True
    """
    left = ops.concatenate([inputs, -grad_inputs], axis=-2)
    right = ops.concatenate([grad_outputs, outputs], axis=-2)
    return 0.5 * ops.matmul(ops.swapaxes(left, -1, -2), right)


def tangent_matmul(inputs: Tensor, kernel: Tensor) -> Tensor:
    """`inputs @ kernel`, with the kernel's gradient projected to its tangent space.

    Args:
        inputs: Tensor of shape `(..., m)`.
        kernel: Orthogonal tensor of shape `(m, n)`.

    Returns:
        Tensor of shape `(..., n)`.

    Source: this package, see `tangent_gradient`.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> np.asarray(orthogonal.tangent_matmul(np.ones((1, 2)), np.eye(2))).tolist()
    [[1.0, 1.0]]
    """

    def function(x, w):
        return (ops.matmul(x, w),)

    def forward(x, w):
        z = ops.matmul(x, w)
        return (z,), (x, w, z)

    def backward(residuals, gradients):
        x, w, z = residuals
        grad_x = ops.matmul(gradients[0], ops.transpose(w))
        flat = [ops.reshape(t, (-1, t.shape[-1])) for t in (x, z, grad_x, gradients[0])]
        if w.shape[0] == w.shape[1]:
            return grad_x, tangent_gradient(*flat)
        return grad_x, project_tangent(w, ops.matmul(ops.transpose(flat[0]), flat[3]))

    product = _backend.with_gradient(function, forward, backward)
    return product(_backend.read(inputs), _backend.read(kernel))[0]
