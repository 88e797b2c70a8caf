"""How far a batch is from orthogonal."""

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend


def isometry_gap(x):
    """Logarithm of the mean eigenvalue of the Gram matrix, minus the mean logarithm.

    Zero if and only if the samples (or the features, if they are fewer) are orthogonal
    and of one length; infinite if they are linearly dependent. Scale does not matter.

    Args:
        x: tensor of shape `(..., samples, features)`, of floating point. The smaller of
            its two Gram matrices is taken, of size `min(samples, features)`.

    Returns:
        Tensor of shape `(...)`, float32 or wider, not negative: `inf` where the
        smallest singular value is zero to rounding, NaN where an entry is not finite.

    Source: Meterez et al., arXiv 2310.02012, section 3: the isometry is `exp(-gap)`.

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
    x = ops.where(is_finite[..., None, None], x, 0)  # some libraries fail on others
    s = ops.linalg.svd(x, compute_uv=False)
    is_deficient = ops.any(s <= _rounding(s, x) * s[..., :1], axis=-1)
    s = ops.where(is_deficient[..., None], ops.ones_like(s), s)
    squares = ops.square(s / s[..., :1])
    # log(mean) - mean(log) would cancel near isometry; all of this is of second order.
    deviation = squares / ops.mean(squares, axis=-1, keepdims=True) - 1
    gap = ops.mean(deviation - ops.log1p(deviation), axis=-1)
    gap = ops.where(gap < 0, ops.zeros_like(gap), gap)
    gap = ops.where(is_deficient, float("inf"), gap)
    return ops.where(is_finite, gap, float("nan"))


def orthogonality_gap(x):
    """Distance between the Gram matrix of trace one and that of orthogonal samples.

    Unlike `isometry_gap` it is finite for dependent samples.

    Args:
        x: as of `isometry_gap`.

    Returns:
        Tensor of shape `(...)`, float32 or wider, in [0, 1).

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


def jacobian_singular_values(model, x, count=None):
    """Singular values of the Jacobian of a model at each sample, in evaluation.

    Args:
        model: a Keras model or layer, or another callable of one tensor that treats
            each sample by itself.
        x: tensor of shape `(batch, ...)`, of floating point.
        count: `None` for all singular values, from the whole Jacobian, one backward
            pass for each output; or the number of the largest ones to find without it,
            for Jacobians that are too large, by a Lanczos iteration for each sample.

    Returns:
        Array of shape `(batch, count)`, falling along the last axis; for `None`,
        `min(inputs, outputs)` of them.

    Raises:
        ValueError: `count` is not in `1, ..., min(inputs, outputs) - 1`.

    Source: Pennington, Schoenholz, Ganguli, arXiv 1711.04735, on dynamical isometry;
    the iteration is that of `scipy.sparse.linalg.svds`.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> model = keras_bsnn.layers.DepthStack(
    ...     keras_bsnn.layers.OrthogonalDense(4), depth=100)
    >>> s = keras_bsnn.ops.isometry.jacobian_singular_values(model, np.ones((2, 4)))
    >>> s.shape, bool(np.all(np.abs(s - 1) < 1e-4))
    ((2, 4), True)
    """
    x = ops.convert_to_tensor(x)
    x = x if keras.backend.is_float_dtype(x.dtype) else ops.cast(x, "float32")

    def outputs(x):
        y = model(x, training=False) if isinstance(model, keras.Layer) else model(x)
        return ops.cast(ops.reshape(y, (x.shape[0], -1)), x.dtype)

    if count is None:
        jacobians = _jacobians(outputs, x)
        return np.linalg.svd(jacobians, compute_uv=False)
    return np.stack([_largest(outputs, sample, count) for sample in x])


def _jacobians(outputs, x):
    """Of shape `(batch, outputs, inputs)`, in float64."""
    size = outputs(x).shape[-1]

    @_backend.traced_once
    def row(x, unit):
        _, pull = _backend.vjp(lambda x: (outputs(x),), x)
        (gradient,) = pull((ops.broadcast_to(unit, (x.shape[0], size)),))
        return ops.reshape(gradient, (x.shape[0], -1))

    units = ops.eye(size, dtype=x.dtype)
    rows = [ops.convert_to_numpy(row(x, units[j])) for j in range(size)]
    return np.stack(rows, axis=1).astype("float64")


def _largest(outputs, sample, count):
    """Singular values, from products with the Jacobian and with its transpose."""
    from scipy.sparse.linalg import LinearOperator, svds

    x = ops.reshape(sample, (-1,))

    def flat(x):
        return outputs(ops.reshape(x, (1, *sample.shape)))[0]

    def transposed(u):
        _, pull = _backend.vjp(lambda x: (flat(x),), x)
        return pull((u,))[0]

    def forward(v):
        """What is linear has a Jacobian, whose transpose the gradient multiplies by."""
        _, pull = _backend.vjp(lambda u: (transposed(u),), ops.zeros_like(y))
        return pull((v,))[0]

    y = flat(x)
    if not isinstance(count, int) or not 0 < count < min(len(x), len(y)):
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
        return np.sort(svds(operator, count, return_singular_vectors=False))[::-1]


def _product(function, dtype):
    """A function of tensors as one of arrays, traced once."""
    function = _backend.traced_once(function)

    def product(v):
        v = ops.convert_to_tensor(v.reshape(-1), dtype)
        return ops.convert_to_numpy(function(v)).astype("float64")

    return product


def _wide(x):
    x = ops.convert_to_tensor(x)
    x = x if keras.backend.is_float_dtype(x.dtype) else ops.cast(x, "float32")
    return _backend.at_least_float32(x)


def _rounding(s, x):
    """Relative size of a singular value that is zero."""
    dtype = keras.backend.standardize_dtype(s.dtype)
    return max(x.shape[-2:]) * float(np.finfo(dtype).eps)
