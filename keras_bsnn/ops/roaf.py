"""Guarantees of random orthogonal additive filters, and the choice of `alpha`."""

import numpy as np
import numpy.typing as npt

from keras_bsnn._types import Array
from keras_bsnn.ops import _check

__all__ = ["alpha_for_depth", "beta_of", "jacobian_bounds"]


def alpha_for_depth(depth: int, c: float = 1.0) -> float:
    """`1 - c / depth`, with which the whole network contracts by about `exp(-c)`.

    Args:
        depth: The number of layers, or of steps in time: an integer of at least 1.
        c: A number in [0, depth]. Defaults to 1.

    Returns:
        `alpha` as a float.

    Raises:
        ValueError: An argument is out of range.

    Source: this package, from the bounds of `jacobian_bounds`.

    Example:

    >>> import keras_bsnn
    >>> keras_bsnn.ops.roaf.alpha_for_depth(1000)
    0.999
    """
    depth = _check.integer("depth", depth)
    c = _check.number("c", c, "in [0, depth]", lambda x: 0 <= x <= depth)
    return 1 - c / depth


def jacobian_bounds(
    alpha: float,
    lipschitz: float,
    weight_norm: npt.ArrayLike,
    depth: int,
    beta: float | None = None,
) -> tuple[float, float]:
    """Bounds on the singular values of the Jacobian of `depth` layers.

    The Jacobian of a layer is `alpha O + beta D W`, where `O` is orthogonal and `D` is
    a diagonal matrix of slopes. Its singular values are therefore within `beta
    lipschitz weight_norm` of `alpha`, and those of a product of layers are within the
    products of these bounds.

    Args:
        alpha: The factor of the orthogonal map, a float.
        lipschitz: The largest slope of the activation, a float of at least 0: 1 for
            tanh and ReLU.
        weight_norm: The largest singular value of every kernel, a float; or an array of
            `depth` of them, one for each kernel.
        depth: The number of layers, an integer of at least 1.
        beta: The factor of the trained part, a float. Defaults to `None`, which stands
            for `1 - alpha`.

    Returns:
        The lower bound, which is 0 where none can be given, and the upper bound, as
        floats.

    Raises:
        ValueError: An argument is out of range, or `weight_norm` is an array of another
            size than `depth`.

    Source: this package. For `alpha = 1 - c / depth` the bounds tend to `exp(-c (1 +
    lipschitz weight_norm))` and `exp(c (lipschitz weight_norm - 1))`.

    Example:

    >>> import keras_bsnn
    >>> low, high = keras_bsnn.ops.roaf.jacobian_bounds(0.9999, 1.0, 2.0, 10_000)
    >>> round(low, 3), round(high, 3)
    (0.05, 2.718)
    """
    depth = _check.integer("depth", depth)
    alpha = _check.number("alpha", alpha)
    lipschitz = _check.number("lipschitz", lipschitz, "a number >= 0", lambda x: x >= 0)
    if beta is not None:
        beta = _check.number("beta", beta)
    norms = np.atleast_1d(np.asarray(weight_norm, "float64"))
    if norms.ndim != 1 or len(norms) not in (1, depth):
        raise ValueError(
            f"`weight_norm` must be a number or an array of {depth}. "
            f"Received: shape={norms.shape}"
        )
    if not np.all(norms >= 0):
        raise _check.refusal("weight_norm", "at least 0", weight_norm)
    reach = abs(beta_of(alpha, beta)) * lipschitz * np.broadcast_to(norms, (depth,))
    return _product(alpha - reach), _product(alpha + reach)


def beta_of(alpha: float, beta: float | None) -> float:
    """The factor of the trained part of a layer: `beta`, or `1 - alpha` for `None`.

    Args:
        alpha: The factor of the orthogonal map, a float.
        beta: A float, or `None`.

    Returns:
        The factor as a float.

    Example:

    >>> import keras_bsnn
    >>> keras_bsnn.ops.roaf.beta_of(0.75, None)
    0.25
    """
    return 1 - alpha if beta is None else beta


def _product(factors: Array) -> float:
    """Product, by way of logarithms; 0 if a factor is not positive."""
    if np.any(factors <= 0):
        return 0.0
    return float(np.exp(np.log(factors).sum()))
