"""Matrices with orthonormal rows or columns: retractions, tangent space, error.

Shapes are `(..., m, n)`, leading axes are batch. A tall matrix (m >= n) is orthogonal
when its columns are orthonormal, a wide one when its rows are. All computations run in
float32 or wider and return the dtype they were given.
"""

import functools

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.ops import _check

MOST_STEPS = 100
NUDGE = 1e-7
SLICES = 16
PROBES = 8
TOLERANCE = 5e-6  # an error above it is more than rounding in float32
NEAR = 1e-3  # an error below it falls with each step, unless products are inexact


def _on_tall(function):
    """Presents the matrix to `function` as tall, and in float32 or wider."""

    @functools.wraps(function)
    def wrapped(matrix, *args, **kwargs):
        matrix = ops.convert_to_tensor(matrix)
        _check_float(matrix)
        with _backend.exact_matmul():
            result = function(_tall(matrix), *args, **kwargs)
        result = ops.cast(result, matrix.dtype)
        return ops.swapaxes(result, -1, -2) if _is_wide(matrix) else result

    return wrapped


def _tall(matrix):
    _check_matrix(matrix)
    x = _at_least_float32(matrix)
    return ops.swapaxes(x, -1, -2) if _is_wide(x) else x


def _is_wide(matrix):
    return matrix.shape[-2] < matrix.shape[-1]


def _check_matrix(matrix):
    if len(matrix.shape) < 2:
        raise ValueError(
            "`matrix` must have the shape (..., m, n). "
            f"Received: shape={tuple(matrix.shape)}"
        )


def _check_float(matrix):
    """What has the dtype of a matrix of integers would be rounded to these."""
    if not keras.backend.is_float_dtype(matrix.dtype):
        dtype = keras.backend.standardize_dtype(matrix.dtype)
        raise _check.refusal("matrix", "of floating point", dtype)


def _at_least_float32(x):
    dtype = keras.backend.result_type(x.dtype, "float32")
    return ops.cast(x, dtype)


def _gram(x):
    return ops.matmul(ops.swapaxes(x, -1, -2), x)


def _gram_error(gram):
    """Largest entry of `|gram - 1|` in each matrix; infinite where one is NaN."""
    error = ops.abs(gram - ops.eye(gram.shape[-1], dtype=gram.dtype))
    # XLA's maximum on a CPU passes over NaN.
    error = ops.where(ops.isnan(error), float("inf"), error)
    return ops.max(error, axis=(-2, -1))


def orthogonality_error(matrix):
    """Largest entry of `|W^T W - 1|` (tall) or `|W W^T - 1|` (wide), for each matrix.

    Args:
        matrix: tensor of shape `(..., m, n)`.

    Returns:
        Tensor of shape `(...)`, float32 or wider; infinite if an entry is not finite.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> float(orthogonal.orthogonality_error(2 * np.eye(3)))
    3.0
    """
    x = _tall(ops.convert_to_tensor(matrix))
    with _backend.exact_matmul():
        return _gram_error(_gram(x))


def check_steps(steps, name="steps"):
    _check.integer(name, steps, 1, MOST_STEPS)


@_on_tall
def newton_schulz(matrix, steps=2):
    """Newton-Schulz steps `X <- X (3 - X^T X) / 2` towards the polar factor.

    For a matrix near orthogonal; it diverges where a singular value exceeds sqrt(3).
    A step squares the error: 1e-1, 8e-3, 5e-5, 2e-9, until rounding (about 5e-7).

    Args:
        matrix: tensor of shape `(..., m, n)`.
        steps: number of steps, an integer from 1 to 100.

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
    for _ in range(steps):
        matrix = 1.5 * matrix - 0.5 * ops.matmul(matrix, _gram(matrix))
    return matrix


@_on_tall
def cayley(matrix, steps=3):
    """Cayley steps `X <- 2 X (1 + X^T X)^{-1}` towards the polar factor.

    The Cayley transform of the skew-symmetric `[[0, X], [-X^T, 0]]` is orthogonal, and
    this step is its off-diagonal block. A singular value `s` becomes
    `2 s / (1 + s^2)`, at most 1: unlike Newton-Schulz it converges from any matrix of
    full rank, at the price of a linear solve.

    Args:
        matrix: tensor of shape `(..., m, n)`.
        steps: number of steps, an integer from 1 to 100.

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
    matrix = matrix / ops.maximum(1.0, ops.max(ops.abs(matrix)))
    for _ in range(steps):
        solved = ops.solve(identity + _gram(matrix), ops.swapaxes(matrix, -1, -2))
        matrix = 2 * ops.swapaxes(solved, -1, -2)
    return matrix


@_on_tall
def qr(matrix):
    """The Q factor of the QR decomposition in which R has a positive diagonal.

    Args:
        matrix: tensor of shape `(..., m, n)`, any step away from orthogonal.

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


def polar(matrix):
    """The polar factor: the orthogonal matrix nearest to `matrix`, however far it is.

    Newton-Schulz steps on a matrix scaled to singular values of at most 1, to
    convergence. Directions that the matrix leaves undetermined (singular values below
    1e-7 of the largest) are completed arbitrarily; entries that are not finite count
    as 0.

    Args:
        matrix: tensor of shape `(..., m, n)`.

    Returns:
        Tensor of the shape and dtype of `matrix`.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import orthogonal
    >>> bool(np.allclose(orthogonal.polar(1e30 * np.eye(2)), np.eye(2), atol=1e-5))
    True
    """
    matrix = ops.convert_to_tensor(matrix)
    return _converge(matrix, ops.full(matrix.shape[:-2], float("inf")))


def retract(matrix, retraction):
    """`retraction(matrix)`, brought on to orthogonal where it did not arrive.

    Where it came near, by further Newton-Schulz steps; elsewhere by `polar(matrix)`. If
    nothing is to be done, that is found at the cost of one matrix product.

    Args:
        matrix: tensor of shape `(..., m, n)`.
        retraction: callable that maps such a tensor to one of the same shape.

    Returns:
        Tensor of the shape and dtype of `matrix`.
    """
    matrix = ops.convert_to_tensor(matrix)
    _check_float(matrix)
    x = _at_least_float32(matrix)
    candidate = retraction(x)
    if candidate.shape != x.shape:
        raise ValueError(
            "`retraction` must keep the shape of the matrix. "
            f"Received: {tuple(x.shape)}, returned: {tuple(candidate.shape)}"
        )
    error = orthogonality_error(candidate)
    near = error < NEAR
    start = ops.where(near[..., None, None], candidate, x)
    result = _converge(start, ops.where(near, error, float("inf")))
    return ops.cast(result, matrix.dtype)


def retract_where_needed(matrix, retraction, tolerance):
    """`retract`, but only of those matrices of a batch that may need it.

    The error of a matrix is at most the largest norm of a row of `E = W^T W - 1`, and
    that is estimated from products of `E` with a few random signs, for a fraction of
    the cost of a retraction. While an estimate is above `tolerance`, the worst
    matrices, a sixteenth of the batch, are retracted.

    Args:
        matrix: tensor of shape `(batch, m, n)`.
        retraction: as in `retract`.
        tolerance: a positive number.

    Returns:
        Tensor of the shape and dtype of `matrix`.
    """
    size = -(-matrix.shape[0] // SLICES)
    tolerance = ops.cast(tolerance, keras.backend.result_type(matrix.dtype, "float32"))

    def is_needed(matrix, error):
        return ops.max(error) > tolerance

    def step(matrix, error):
        _, worst = ops.top_k(error, size)
        retracted = retract(ops.take(matrix, worst, axis=0), retraction)
        indices = worst[:, None]
        error = ops.scatter_update(error, indices, ops.zeros_like(error[:size]))
        return ops.scatter_update(matrix, indices, retracted), error

    state = (matrix, estimated_error(matrix))
    return ops.while_loop(is_needed, step, state, maximum_iterations=SLICES)[0]


def estimated_error(matrix):
    """An upper bound of the error of each matrix, up to chance; infinite for NaN."""
    x = _tall(matrix)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (x.shape[-1], PROBES))
    probes = ops.convert_to_tensor(signs, dtype=x.dtype)
    with _backend.exact_matmul():
        # E^T in this order: XLA on a CPU is slow at products with a transposed matrix.
        product = ops.matmul(ops.swapaxes(ops.matmul(x, probes), -1, -2), x)
    product = product - ops.transpose(probes)
    error = ops.sqrt(ops.max(ops.mean(ops.square(product), axis=-2), axis=-1))
    return ops.where(ops.isfinite(error), error, float("inf"))


@_on_tall
def _converge(x, error):
    """Scaled Newton-Schulz steps of each matrix whose `error` is above the tolerance.

    They end too when the error is small and falls no more: products in TF32, which a
    GPU may take for float32, never come nearer than about 1e-4.
    """

    def is_far(error, previous):
        return (error > TOLERANCE) & ((error > NEAR) | (error < previous / 2))

    def any_is_far(x, error, previous):
        return ops.any(is_far(error, previous))

    def step(x, error, previous):
        # The others stay as they are: a matrix ends alike in a batch and alone.
        far = is_far(error, previous)
        stepped = _scaled_step(x, ops.isinf(error)[..., None, None])
        x = ops.where(far[..., None, None], stepped, x)
        return x, _gram_error(_gram(x)), ops.where(far, error, 0)

    error = ops.cast(error, x.dtype)
    state = (x, error, ops.full_like(error, float("inf")))
    return ops.while_loop(any_is_far, step, state, maximum_iterations=MOST_STEPS)[0]


def _scaled_step(x, is_new):
    x = ops.where(is_new, _normalized(x), x)
    gram = _gram(x)
    # The largest row sum bounds the squared norm; below 3 a step converges.
    bound = ops.max(ops.sum(ops.abs(gram), axis=-1), axis=-1)[..., None, None]
    shrink = ops.where(bound > 2.9, 1 / bound, ops.ones_like(bound))
    return ops.sqrt(shrink) * (1.5 * x - 0.5 * shrink * ops.matmul(x, gram))


def _normalized(x):
    """Finite, of largest entry about 1, and of full rank: a nudge in all directions."""
    x = ops.where(ops.isfinite(x), x, ops.zeros_like(x))
    largest = ops.max(ops.abs(x), axis=(-2, -1), keepdims=True)
    nudge = keras.random.normal(x.shape[-2:], dtype=x.dtype, seed=0)
    return x / ops.where(largest > 0, largest, ops.ones_like(largest)) + NUDGE * nudge


def project_tangent(matrix, direction):
    """Projects a direction to the tangent space of the orthogonal matrices.

    `G - W sym(W^T G)` for a tall `W`, with `sym(A) = (A + A^T) / 2`: the part of `G`
    along which the columns stay orthonormal to first order.

    Args:
        matrix: orthogonal, of shape `(..., m, n)`.
        direction: of the same shape and dtype, for instance a gradient.

    Returns:
        Tensor of that shape and dtype.

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
    if _is_wide(matrix):
        transposed = (ops.swapaxes(x, -1, -2) for x in (matrix, direction))
        return ops.swapaxes(project_tangent(*transposed), -1, -2)
    product = ops.matmul(ops.swapaxes(matrix, -1, -2), direction)
    symmetric = 0.5 * (product + ops.swapaxes(product, -1, -2))
    return direction - ops.matmul(matrix, symmetric)


def tangent_gradient(inputs, outputs, of_inputs, of_outputs):
    """The gradient of a square orthogonal kernel, projected to its tangent space.

    With `Z = X W`, the gradient `D` of `Z` and `P = D W^T` of `X`, the gradient of `W`
    is `G = X^T D`, and its projection `(G - W G^T W) / 2 = (X^T D - P^T Z) / 2`: one
    product of the size of the gradient's own, where `project_tangent` takes two of
    three matrices as large as the kernel.

    Args:
        inputs, outputs: `X` and `Z`, of shape `(..., samples, units)`.
        of_inputs, of_outputs: `P` and `D`, the gradients of these.

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
    left = ops.concatenate([inputs, -of_inputs], axis=-2)
    right = ops.concatenate([of_outputs, outputs], axis=-2)
    return 0.5 * ops.matmul(ops.swapaxes(left, -1, -2), right)


def tangent_matmul(inputs, kernel):
    """`inputs @ kernel`, with the kernel's gradient projected to its tangent space.

    Args:
        inputs: tensor of shape `(..., m)`.
        kernel: orthogonal, of shape `(m, n)`.

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
        of_x = ops.matmul(gradients[0], ops.transpose(w))
        flat = [ops.reshape(t, (-1, t.shape[-1])) for t in (x, z, of_x, gradients[0])]
        if w.shape[0] == w.shape[1]:
            return of_x, tangent_gradient(*flat)
        return of_x, project_tangent(w, ops.matmul(ops.transpose(flat[0]), flat[3]))

    product = _backend.with_gradient(function, forward, backward)
    return product(_backend.read(inputs), _backend.read(kernel))[0]
