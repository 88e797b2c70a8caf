"""Further steps that make a retraction converge, whatever the size of a step."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend
from keras_bsnn._types import Tensor
from keras_bsnn.ops import _check, _matrix

MOST_STEPS = 100
NUDGE = 1e-7
SLICES = 16
PROBES = 8
TOLERANCE = 5e-6  # an error above it is more than rounding in float32
NEAR = 1e-3  # an error below it falls with each step, unless products are inexact


def retract(matrix: Tensor, retraction: Callable[[Tensor], Tensor]) -> Tensor:
    """`retraction(matrix)`, made orthogonal where the retraction did not converge.

    Where it came near, further Newton-Schulz steps are taken; elsewhere the result is
    `polar(matrix)`. Where nothing is to be done, one matrix product shows it.

    Args:
        matrix: Tensor of shape `(..., m, n)`.
        retraction: Callable that maps such a tensor to one of the same shape.

    Returns:
        Tensor of the shape and dtype of `matrix`.

    Raises:
        ValueError: If the retraction changes the shape, or `matrix` is not of floating
            point.
    """
    matrix = ops.convert_to_tensor(matrix)
    _matrix.check_float(matrix)
    x = _matrix.at_least_float32(matrix)
    candidate = retraction(x)
    if candidate.shape != x.shape:
        raise ValueError(
            "`retraction` must keep the shape of the matrix. "
            f"Received: {tuple(x.shape)}, returned: {tuple(candidate.shape)}"
        )
    error = _matrix.error(candidate)
    near = error < NEAR
    start = ops.where(near[..., None, None], candidate, x)
    result = converge(start, ops.where(near, error, float("inf")))
    return ops.cast(result, matrix.dtype)


def retract_where_needed(
    matrix: Tensor, retraction: Callable[[Tensor], Tensor], tolerance: float
) -> Tensor:
    """`retract`, but only for those matrices of a batch that may need it.

    The error of a matrix is at most the largest norm of a row of `E = W^T W - 1`, and
    that is estimated from products of `E` with a few random signs, for a fraction of
    the cost of a retraction. While an estimate is above `tolerance`, the worst
    matrices, a sixteenth of the batch, are retracted.

    Args:
        matrix: Tensor of shape `(batch, m, n)`.
        retraction: Callable, as in `retract`.
        tolerance: Positive number, the orthogonality error that may remain.

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


def estimated_error(matrix: Tensor) -> Tensor:
    """A bound of the orthogonality error of each matrix, estimated at random.

    Args:
        matrix: Tensor of shape `(..., m, n)`.

    Returns:
        Tensor of shape `(...)`, float32 or wider; infinite if an entry is NaN.
    """
    x = _matrix.tall(matrix)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (x.shape[-1], PROBES))
    probes = ops.convert_to_tensor(signs, dtype=x.dtype)
    with _backend.exact_matmul():
        # E^T in this order: XLA on a CPU is slow at products with a transposed matrix.
        product = ops.matmul(ops.swapaxes(ops.matmul(x, probes), -1, -2), x)
    product = product - ops.transpose(probes)
    error = ops.sqrt(ops.max(ops.mean(ops.square(product), axis=-2), axis=-1))
    return ops.where(ops.isfinite(error), error, float("inf"))


@_matrix.on_tall
def converge(x, error):
    """Scaled Newton-Schulz steps of each matrix whose `error` is above the tolerance.

    They also end when the error is small and no longer falls: products in TF32, which a
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
        return x, _matrix.gram_error(_matrix.gram(x)), ops.where(far, error, 0)

    error = ops.cast(error, x.dtype)
    state = (x, error, ops.full_like(error, float("inf")))
    return ops.while_loop(any_is_far, step, state, maximum_iterations=MOST_STEPS)[0]


def _scaled_step(x, is_new):
    x = ops.where(is_new, _normalized(x), x)
    gram = _matrix.gram(x)
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


def check_steps(steps: int, name: str = "steps") -> int:
    """A number of steps as an `int`; `ValueError` unless it is from 1 to 100.

    Args:
        steps: The number of steps.
        name: String, the name of the argument. Defaults to `"steps"`.
    """
    return _check.integer(name, steps, 1, MOST_STEPS)
