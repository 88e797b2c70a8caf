"""What random orthogonal additive filters guarantee, and the rule for `alpha`."""

import numpy as np

from keras_bsnn.ops import _check


def alpha_for_depth(depth, c=1.0):
    """`1 - c / depth`: then the whole network contracts by about `exp(-c)`.

    Args:
        depth: number of layers, or of steps in time, at least 1.
        c: a number in [0, depth].

    Raises:
        ValueError: an argument is out of range.

    Source: this package, from the bounds below.

    Example:

    >>> import keras_bsnn
    >>> keras_bsnn.ops.roaf.alpha_for_depth(1000)
    0.999
    """
    _check.integer("depth", depth)
    _check.number("c", c, "in [0, depth]", lambda x: 0 <= x <= depth)
    return 1 - c / depth


def jacobian_bounds(alpha, lipschitz, weight_norm, depth, beta=None):
    """Bounds of the singular values of the Jacobian of `depth` layers.

    Each layer's Jacobian is `alpha O + beta D W` with `O` orthogonal and `D` a diagonal
    matrix of slopes, so that its singular values are within `beta lipschitz
    weight_norm` of `alpha`; and those of a product are within the products.

    Args:
        alpha, beta: as of `keras_bsnn.layers.ROAFDense`.
        lipschitz: largest slope of the activation: 1 for tanh and ReLU.
        weight_norm: largest singular value of a kernel, or an array of that of each of
            the `depth` kernels.
        depth: number of layers.

    Returns:
        The lower bound, 0 where there is none, and the upper one, as numbers.

    Raises:
        ValueError: an argument is out of range, or `weight_norm` an array of another
            size than `depth`.

    Source: this package; for `alpha = 1 - c / depth` they tend to `exp(-c (1 +
    lipschitz weight_norm))` and `exp(c (lipschitz weight_norm - 1))`.

    Example:

    >>> import keras_bsnn
    >>> low, high = keras_bsnn.ops.roaf.jacobian_bounds(0.9999, 1.0, 2.0, 10_000)
    >>> round(low, 3), round(high, 3)
    (0.05, 2.718)
    """
    _check.integer("depth", depth)
    _check.number("alpha", alpha)
    _check.number("lipschitz", lipschitz, "a number >= 0", lambda x: x >= 0)
    if beta is not None:
        _check.number("beta", beta)
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


def beta_of(alpha, beta):
    """The weight of what is not filtered: `1 - alpha` in the place of `None`.

    Example:

    >>> import keras_bsnn
    >>> keras_bsnn.ops.roaf.beta_of(0.75, None)
    0.25
    """
    return 1 - alpha if beta is None else beta


def _product(factors):
    """Of numbers, by their logarithms; 0 if one of them is not positive."""
    if np.any(factors <= 0):
        return 0.0
    return float(np.exp(np.log(factors).sum()))
