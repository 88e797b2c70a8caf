"""Distance of a batch, or of a Jacobian, from an isometry."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend
from keras_bsnn._types import Array, Tensor
from keras_bsnn.ops import _check

__all__ = ["isometry_gap", "jacobian_singular_values", "orthogonality_gap"]


def isometry_gap(x: Tensor) -> Tensor:
    """Logarithm of the mean eigenvalue of the Gram matrix, minus the mean logarithm.

    The gap is zero if and only if the samples (or the features, if they are fewer) are
    orthogonal and of equal length, and infinite if they are linearly dependent. It does
    not depend on scale.

    Args:
        x: A floating-point tensor of shape `(..., samples, features)`. The smaller of
            its two Gram matrices is taken, of size `min(samples, features)`.

    Returns:
        A tensor of shape `(...)`, float32 or wider, not negative. It is infinite where
        the smallest singular value is zero to rounding, and NaN where an entry of `x`
        is not finite.

    Source: Meterez et al., arXiv 2310.02012, section 3, where the isometry is
    `exp(-gap)`.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import isometry
    >>> float(isometry.isometry_gap(3 * np.eye(4)))
    0.0
    >>> float(isometry.isometry_gap(np.ones((4, 4))))
    inf
    """
    x = _wide(x)
    is_finite = ops.all(ops.isfinite(x), axis=(-2, -1))
    x = ops.where(is_finite[..., None, None], x, 0)  # or some libraries would fail
    s = ops.linalg.svd(x, compute_uv=False)
    is_deficient = ops.any(s <= _rounding(s, x) * s[..., :1], axis=-1)
    s = ops.where(is_deficient[..., None], ops.ones_like(s), s)
    squares = ops.square(s / s[..., :1])
    # log(mean) - mean(log) would cancel near isometry; these terms are of second order.
    deviation = squares / ops.mean(squares, axis=-1, keepdims=True) - 1
    gap = ops.mean(deviation - ops.log1p(deviation), axis=-1)
    gap = ops.where(gap < 0, ops.zeros_like(gap), gap)
    gap = ops.where(is_deficient, float("inf"), gap)
    return ops.where(is_finite, gap, float("nan"))


def orthogonality_gap(x: Tensor) -> Tensor:
    """Distance between the Gram matrix of trace one and that of orthogonal samples.

    Unlike `isometry_gap`, it is finite for linearly dependent samples.

    Args:
        x: A floating-point tensor of shape `(..., samples, features)`.

    Returns:
        A tensor of shape `(...)`, float32 or wider, with entries in [0, 1).

    Source: Daneshmand, Joudaki, Bach, arXiv 2106.03970, definition 1.

    Example:

    >>> import numpy as np
    >>> from keras_bsnn.ops import isometry
    >>> float(isometry.orthogonality_gap(3 * np.eye(4)))
    0.0
    >>> round(float(isometry.orthogonality_gap(np.ones((4, 4)))), 4)
    0.866
    """
    squares = ops.square(ops.linalg.svd(_wide(x), compute_uv=False))
    shares = squares / ops.sum(squares, axis=-1, keepdims=True)
    return ops.sqrt(ops.sum(ops.square(shares - 1 / shares.shape[-1]), axis=-1))


def jacobian_singular_values(
    model: Callable[..., Tensor], x: Tensor, count: int | None = None
) -> Array:
    """Singular values of the Jacobian of a model in evaluation mode, for each sample.

    Args:
        model: A Keras model or layer, or another callable of one tensor. It must treat
            each sample by itself.
        x: A floating-point tensor of shape `(batch, ...)`.
        count: The number of largest singular values to find, an integer from 1 to
            `min(inputs, outputs) - 1`. A Lanczos iteration for each sample finds them
            without the Jacobian, which may be too large. Defaults to `None`, which
            gives all singular values: they come from the whole Jacobian, with one
            backward pass for each output.

    Returns:
        A float64 array of shape `(batch, count)`, or `(batch, min(inputs, outputs))`
        for `None`. The values decrease along the last axis.

    Raises:
        ValueError: `count` is out of range.

    Source: Pennington, Schoenholz, Ganguli, arXiv 1711.04735, on dynamical isometry.
    The iteration is that of `scipy.sparse.linalg.svds`.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> model = keras_bsnn.layers.DepthStack(
    ...     keras_bsnn.layers.OrthogonalDense(4), depth=100)
    >>> s = keras_bsnn.ops.isometry.jacobian_singular_values(model, np.ones((2, 4)))
    >>> s.shape, bool(np.all(np.abs(s - 1) < 1e-4))
    ((2, 4), True)
    """
    x = _floating(x)

    def outputs(x: Tensor) -> Tensor:
        y = model(x, training=False) if isinstance(model, keras.Layer) else model(x)
        return ops.cast(ops.reshape(y, (x.shape[0], -1)), x.dtype)

    if count is None:
        jacobians = _jacobians(outputs, x)
        return np.linalg.svd(jacobians, compute_uv=False)
    return np.stack([_largest(outputs, sample, count) for sample in x])


def _jacobians(outputs: Callable[[Tensor], Tensor], x: Tensor) -> Array:
    """Jacobians of shape `(batch, outputs, inputs)`, in float64."""
    size = outputs(x).shape[-1]

    @_backend.traced_once
    def row(x: Tensor, unit: Tensor) -> Tensor:
        _, pull = _backend.vjp(lambda x: (outputs(x),), x)
        (gradient,) = pull((ops.broadcast_to(unit, (x.shape[0], size)),))
        return ops.reshape(gradient, (x.shape[0], -1))

    units = ops.eye(size, dtype=x.dtype)
    rows = [ops.convert_to_numpy(row(x, units[j])) for j in range(size)]
    return np.stack(rows, axis=1).astype("float64")


def _largest(outputs: Callable[[Tensor], Tensor], sample: Tensor, count: int) -> Array:
    """Largest singular values, from products with the Jacobian and its transpose."""
    from scipy.sparse.linalg import LinearOperator, svds

    x = ops.reshape(sample, (-1,))

    def flat(x: Tensor) -> Tensor:
        return outputs(ops.reshape(x, (1, *sample.shape)))[0]

    def transposed(u: Tensor) -> Tensor:
        """Vector-Jacobian product."""
        _, pull = _backend.vjp(lambda x: (flat(x),), x)
        return pull((u,))[0]

    def forward(v: Tensor) -> Tensor:
        """Jacobian-vector product, as the gradient of the linear map `transposed`."""
        _, pull = _backend.vjp(lambda u: (transposed(u),), ops.zeros_like(y))
        return pull((v,))[0]

    y = flat(x)
    if not _check.is_integer(count) or not 0 < count < min(len(x), len(y)):
        raise ValueError(
            f"`count` must be at least 1 and less than {min(len(x), len(y))}, or None. "
            f"Received: count={count}"
        )
    operator = LinearOperator(
        (len(y), len(x)),
        matvec=_product(forward, x.dtype),
        rmatvec=_product(transposed, x.dtype),
        dtype="float64",
    )
    with _backend.native_gradients():
        return np.sort(svds(operator, int(count), return_singular_vectors=False))[::-1]


def _product(
    function: Callable[[Tensor], Tensor], dtype: str
) -> Callable[[Array], Array]:
    """The function of tensors as a function of arrays, traced once."""
    function = _backend.traced_once(function)

    def product(v: Array) -> Array:
        v = ops.convert_to_tensor(v.reshape(-1), dtype)
        return ops.convert_to_numpy(function(v)).astype("float64")

    return product


def _floating(x: Any) -> Tensor:
    """`x` as a tensor; integers and booleans become float32."""
    x = ops.convert_to_tensor(x)
    return x if keras.backend.is_float_dtype(x.dtype) else ops.cast(x, "float32")


def _wide(x: Any) -> Tensor:
    """`x` as a tensor of float32 or wider."""
    return _backend.at_least_float32(_floating(x))


def _rounding(s: Tensor, x: Tensor) -> float:
    """Relative size below which a singular value counts as zero."""
    dtype = keras.backend.standardize_dtype(s.dtype)
    return max(x.shape[-2:]) * float(np.finfo(dtype).eps)
